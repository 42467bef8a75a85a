"""Arguments that would be ignored are refused."""

import pytest

from jaxlink import arguments


@pytest.mark.parametrize('given', [['--num_processes=2'], ['--process_id=0']])
def test_what_several_hosts_need_is_refused_without_them(monkeypatch, capsys, given):
  monkeypatch.setattr('sys.argv', ['train', '--gin_file=a.gin', *given])
  with pytest.raises(SystemExit):
    arguments.parse('')
  assert f'{given[0].split("=")[0]} needs --coordinator_address' in capsys.readouterr().err
  for several in ('--coordinator_address=localhost:1', '--distributed'):
    monkeypatch.setattr('sys.argv', ['train', '--gin_file=a.gin', *given, several])
    assert arguments.parse('').gin_file == ['a.gin']
