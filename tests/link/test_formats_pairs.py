"""Columns, weights and aligned files: what stands there is read, what is wrong is named by line."""

import gzip
import pathlib

import pytest

from jaxlink.link.lexicon import Lexicon

EXCERPTS = pathlib.Path(__file__).parent / 'dictionaries'


@pytest.fixture
def write(tmp_path):
  def write_file(text, name='list.tsv'):
    path = tmp_path / name
    path.write_text(text, encoding='utf-8')
    return path

  return write_file


def test_a_third_column_of_numbers_is_a_weight(write):
  lexicon = Lexicon.load(write('dog\tmbwa\t0.75\ndog\tjibwa\t1e-3\nwater\tmaji\t2\n'))
  assert lexicon.entries == {'dog': ('mbwa', 'jibwa'), 'water': ('maji',)}
  assert lexicon.weights == {'dog': (0.75, 0.001), 'water': (2.0,)}


def test_a_list_without_weights_has_none(write):
  assert Lexicon.load(write('dog\tmbwa\n')).weights == {}


def test_parts_of_speech_are_not_read(write):
  lexicon = Lexicon.load(write('dog\tmbwa\tnoun\nrun\tkimbia\tverb\nten\tkumi\t10\n'))
  assert lexicon.weights == {}
  assert lexicon.entries == {'dog': ('mbwa',), 'run': ('kimbia',), 'ten': ('kumi',)}
  assert lexicon.counts['extra_columns'] == 3


def test_a_weight_is_no_extra_column(write):
  assert Lexicon.load(write('dog\tmbwa\t1\nrun\tkimbia\t2\n')).counts['extra_columns'] == 0


def test_columns_behind_a_weight_are_not_read(write):
  lexicon = Lexicon.load(write('dog\tmbwa\t1\tnoun\nrun\tkimbia\t2\tverb\n'))
  assert lexicon.weights == {'dog': (1.0,), 'run': (2.0,)}
  assert lexicon.counts['extra_columns'] == 2


def test_column_names_over_weights_are_no_pair(write):
  lexicon = Lexicon.load(write('source\ttarget\tscore\ndog\tmbwa\t0.5\nwater\tmaji\t1\n'))
  assert list(lexicon.entries) == ['dog', 'water']
  assert lexicon.counts['header_lines'] == 1


def test_a_weight_of_zero_is_counted(write):
  lexicon = Lexicon.load(write('dog\tmbwa\t0.5\ndog\tpaka\t0\n'))
  assert lexicon.entries == {'dog': ('mbwa',)}
  assert lexicon.counts['zero_weights'] == 1


def test_of_a_pair_that_stands_twice_the_first_weight_stands(write):
  lexicon = Lexicon.load(write('dog\tmbwa\t0.5\ndog\tmbwa\t0.25\n'))
  assert lexicon.weights == {'dog': (0.5,)}
  assert lexicon.counts['duplicate_pairs'] == 1


@pytest.mark.parametrize('weight', ['-1', 'nan', 'inf', 'noun', ''])
def test_a_weight_that_is_none_is_an_error_with_its_line(write, weight):
  path = write(f'dog\tmbwa\t0.5\ncat\tpaka\t{weight}\nwater\tmaji\t1\n')
  with pytest.raises(ValueError, match=rf"list\.tsv:2: the weight is '{weight}'"):
    Lexicon.load(path)


def test_a_missing_weight_is_an_error(write):
  with pytest.raises(ValueError, match=r'list\.tsv:2: the weight is missing'):
    Lexicon.load(write('dog\tmbwa\t0.5\ncat\tpaka\nwater\tmaji\t1\n'))


def test_a_line_of_50_megabytes_is_an_error_that_is_short(tmp_path):
  path = tmp_path / 'list.tsv.gz'
  path.write_bytes(gzip.compress(b'dog\tmbwa\n' + b'x' * 50_000_000 + b'\tpaka\n', 1))
  with pytest.raises(ValueError, match=r'list\.tsv\.gz:2: a line of 50,000,005 bytes') as error:
    Lexicon.load(path)
  assert len(str(error.value)) < 400


def test_a_long_line_without_a_target_is_shown_in_part(write):
  with pytest.raises(ValueError, match=r'list\.tsv:1: .{,120} has no target') as error:
    Lexicon.load(write('x' * 100_000 + '\n'))
  assert len(str(error.value)) < 400


def test_lines_of_two_encodings_are_an_error_with_the_first_bad_line(tmp_path):
  path = tmp_path / 'list.tsv'
  path.write_bytes('coffee\tcafé\n'.encode() + 'summer\tété\n'.encode('latin-1'))
  with pytest.raises(ValueError, match=r'list\.tsv:2: byte 20 \(0xe9\) is not UTF-8'):
    Lexicon.load(path)


def test_one_of_two_aligned_files_finds_the_other(tmp_path):
  (tmp_path / 'dict.bn-en.bn').write_text('সেতু\n\nজম্মু\n', encoding='utf-8')
  (tmp_path / 'dict.bn-en.en.gz').write_bytes(gzip.compress(b'bridge\nlost\njammu; a place\n'))
  for name in ('dict.bn-en.bn', 'dict.bn-en.en.gz'):
    lexicon = Lexicon.load(tmp_path / name)
    assert lexicon.entries == {'bridge': ('সেতু',), 'jammu': ('জম্মু',), 'place': ('জম্মু',)}
    assert lexicon.counts['empty_side'] == 1
    assert lexicon.direction == 'inverted'


def test_aligned_files_of_different_lengths_are_an_error(tmp_path):
  (tmp_path / 'dict.bn-en.bn').write_text('সেতু\nজম্মু\n', encoding='utf-8')
  (tmp_path / 'dict.bn-en.en').write_text('bridge\n', encoding='utf-8')
  with pytest.raises(ValueError, match=r'bn-en\.bn has 2 lines and dict\.bn-en\.en 1'):
    Lexicon.load(tmp_path / 'dict.bn-en.en')


def test_an_aligned_file_alone_is_an_error(tmp_path):
  (tmp_path / 'dict.bn-en.bn').write_text('সেতু\n', encoding='utf-8')
  with pytest.raises(FileNotFoundError, match=r'dict\.bn-en\.en: no such file'):
    Lexicon.load(tmp_path / 'dict.bn-en.bn')
