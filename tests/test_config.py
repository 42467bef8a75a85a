"""Recipes in gin: what is bound reaches a config, and what cannot is an error that helps."""

import collections
import dataclasses
import json
import pickle
import subprocess
import sys
from typing import Literal

import pytest

import gin
from jaxlink import config
from jaxlink.names import nearest


@config.configurable
class Rise:
  """A learning-rate schedule."""

  peak: float
  shape: Literal['cosine', 'constant', 'linear'] = 'cosine'
  warmup: int | None = None

  def __post_init__(self):
    if self.peak <= 0:
      raise ValueError(f'Rise.peak is {self.peak}: it is a positive learning rate.')


@config.configurable
class Phase:
  """One part of a run."""

  tokens: int
  weights: dict[str, float] = dataclasses.field(default_factory=lambda: {'en': 1.0})
  betas: tuple[float, float] = (0.9, 0.95)
  rise: Rise = dataclasses.field(default_factory=lambda: Rise(peak=1e-3))
  packed: bool = True
  name: str = ''


@config.configurable
class Course:
  """The top of a recipe."""

  phases: tuple[Phase, ...]
  seed: int = 0
  note: str | None = None


@config.configurable
@dataclasses.dataclass(frozen=True)
class Ready:
  """A dataclass before it was a configurable, without __post_init__."""

  width: int = 4
  names: list[str] = dataclasses.field(default_factory=list)


TWO = [
  'Course.phases = [@pretrain/Phase(), @anneal/Phase()]',
  'pretrain/Phase.tokens = 2_000_000',
  'anneal/Phase.tokens = 500_000',
]


def course(*bindings: str, base: list[str] = TWO) -> Course:
  return config.parse(Course, (), [*base, *bindings])


def refused(kind: type[Exception], *bindings: str, base: list[str] = TWO) -> str:
  with pytest.raises(kind) as caught:
    course(*bindings, base=base)
  return str(caught.value)


# ── classes stay classes ────────────────────────────────────────────────────────


def test_a_config_is_an_ordinary_frozen_dataclass():
  rise = Rise(peak=2, shape='linear')
  assert isinstance(rise, Rise)
  assert rise == Rise(peak=2.0, shape='linear')
  assert [field.name for field in dataclasses.fields(Rise)] == ['peak', 'shape', 'warmup']
  assert dataclasses.replace(rise, warmup=10).warmup == 10
  with pytest.raises(dataclasses.FrozenInstanceError):
    rise.peak = 3.0
  with pytest.raises(TypeError):
    Rise(2.0)


def test_configs_and_their_classes_pickle_by_reference():
  run = course()
  assert pickle.loads(pickle.dumps(run)) == run
  assert pickle.loads(pickle.dumps(Phase)) is Phase
  assert type(pickle.loads(pickle.dumps(run.phases[0]))) is Phase


def test_gin_never_binds_what_python_constructs():
  assert course('Phase.name = "a"').phases[0].name == 'a'
  assert Phase(tokens=1).name == ''


def test_replace_checks_again():
  with pytest.raises(ValueError, match=r'Rise.peak is -1.0: it is a positive learning rate'):
    dataclasses.replace(Rise(peak=1.0), peak=-1)


def test_a_finished_dataclass_is_accepted_and_checked():
  assert Ready(width=3).width == 3
  with pytest.raises(TypeError, match=r"Ready.width is '3' \(str\): it is an int\."):
    Ready(width='3')


def test_a_dataclass_that_can_change_is_refused():
  @dataclasses.dataclass
  class Loose:
    width: int = 4

  with pytest.raises(TypeError, match='Loose is a dataclass that is not frozen'):
    config.configurable(Loose)


def test_a_subclass_checks_inherited_and_own_fields():
  @config.configurable
  class Fall(Rise):
    floor: float = 0

  assert Fall(peak=1, floor=0).floor == 0.0
  with pytest.raises(TypeError, match=r'Fall.peak is None \(NoneType\): it is a float'):
    Fall(peak=None)
  with pytest.raises(TypeError, match=r'Fall.flor is no field. Nearest: .floor.'):
    Fall(peak=1.0, flor=1.0)


# ── types ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'tokens': '3'}, "Phase.tokens is '3' (str): it is an int."),
    ({'tokens': 3.0}, 'Phase.tokens is 3.0 (float): it is an int.'),
    ({'tokens': True}, 'Phase.tokens is True (bool): it is an int.'),
    ({'tokens': 3, 'packed': 1}, 'Phase.packed is 1 (int): it is a bool.'),
    ({'tokens': 3, 'weights': {'en': 'x'}}, "Phase.weights['en'] is 'x' (str): it is a float."),
    ({'tokens': 3, 'weights': {1: 1.0}}, 'the key 1, is 1 (int): it is a str.'),
    ({'tokens': 3, 'betas': [0.9]}, 'Phase.betas is [0.9] (list): it is a tuple[float, float].'),
    ({'tokens': 3, 'betas': (0.9, False)}, 'Phase.betas[1] is False (bool): it is a float.'),
    ({'tokens': 3, 'rise': 1e-3}, 'Phase.rise is 0.001 (float): it is a Rise.'),
    ({}, 'Phase.tokens has no value and no default: it is an int.'),
    ({'token': 3}, "Phase.token is no field. Nearest: 'tokens'."),
  ],
)
def test_a_wrong_type_is_named_with_field_value_and_what_is_allowed(fields, message):
  with pytest.raises(TypeError) as caught:
    Phase(**fields)
  assert message in str(caught.value)


def test_every_item_is_checked_not_only_the_first():
  with pytest.raises(TypeError, match=r'Ready.names\[2\] is 3 \(int\): it is a str'):
    Ready(names=['a', 'b', 3])


def test_an_int_for_a_float_is_stored_as_a_float_at_any_depth():
  phase = Phase(tokens=1, weights={'en': 3, 'sw': 1}, betas=[1, 0])
  assert [type(weight) for weight in phase.weights.values()] == [float, float]
  assert phase.betas == (1.0, 0.0)
  assert type(phase.betas) is tuple
  assert type(phase.betas[0]) is float


def test_a_choice_that_is_none_gives_the_nearest():
  with pytest.raises(ValueError, match=r"Rise.shape is 'cosin': it is one of .* Nearest: 'cosine'"):
    Rise(peak=1.0, shape='cosin')
  with pytest.raises(TypeError, match=r'Rise.shape is 3 \(int\): it is one of'):
    Rise(peak=1.0, shape=3)


def test_value_checks_see_checked_types():
  with pytest.raises(TypeError, match=r"Rise.peak is 'high' \(str\): it is a float"):
    Rise(peak='high')  # its own check would compare a str with 0


def test_an_optional_field_names_both_arms():
  assert Rise(peak=1.0, warmup=None).warmup is None
  with pytest.raises(TypeError, match=r"Rise.warmup is 'x' \(str\): it is an int or None"):
    Rise(peak=1.0, warmup='x')


# ── recipes ─────────────────────────────────────────────────────────────────────


def test_scopes_give_each_stage_its_own_and_share_the_rest():
  run = course('Phase.packed = False', 'anneal/Phase.rise = @anneal/Rise()', 'Rise.peak = 3')
  assert [phase.tokens for phase in run.phases] == [2_000_000, 500_000]
  assert [phase.packed for phase in run.phases] == [False, False]
  assert run.phases[1].rise == Rise(peak=3.0)
  assert isinstance(run.phases, tuple)


def test_parsing_twice_starts_clean():
  assert course('Course.seed = 7').seed == 7
  assert course().seed == 0
  refused(ValueError, 'Course.sead = 7')
  assert course().seed == 0
  gin.bind_parameter('Course.seed', 9)  # by some other user of gin in this process
  assert course().seed == 0


def test_a_later_binding_wins_over_the_file(tmp_path):
  recipe = tmp_path / 'recipe.gin'
  recipe.write_text('\n'.join([*TWO, 'Course.seed = 1']))
  assert config.parse(Course, [str(recipe)], ['Course.seed = 2']).seed == 2


def test_includes_resolve_from_here_from_the_file_and_from_its_parents(tmp_path, monkeypatch):
  (tmp_path / 'gin' / 'model').mkdir(parents=True)
  (tmp_path / 'gin' / 'runs').mkdir()
  (tmp_path / 'gin' / 'model' / 'small.gin').write_text('Course.seed = 5\n')
  recipe = tmp_path / 'gin' / 'runs' / 'recipe.gin'
  for include, folder in [
    ('gin/model/small.gin', tmp_path),  # from the working directory
    ('../model/small.gin', '/'),  # from the file's folder
    ('model/small.gin', '/'),  # from a parent of it
  ]:
    monkeypatch.chdir(folder)
    recipe.write_text('\n'.join([f'include {include!r}', *TWO]))
    assert config.parse(Course, [str(recipe)]).seed == 5


def test_an_include_beside_the_recipe_wins_over_one_in_the_working_directory(tmp_path, monkeypatch):
  here, there = tmp_path / 'here', tmp_path / 'there'
  for folder, seed in ((here, 1), (there, 2)):
    (folder / 'model').mkdir(parents=True)
    (folder / 'model' / 'small.gin').write_text(f'Course.seed = {seed}\n')
  (there / 'runs').mkdir()
  recipe = there / 'runs' / 'recipe.gin'
  recipe.write_text('\n'.join(["include 'model/small.gin'", *TWO]))
  monkeypatch.chdir(here)
  assert config.parse(Course, [str(recipe)]).seed == 2


@pytest.mark.parametrize(
  'binding', ['Course.seed = [1, 2', "Course.seed = {'a': (1", 'Course.seed = (1']
)
def test_an_open_bracket_is_named_with_its_binding(binding):
  with pytest.raises(SyntaxError, match='not closed') as caught:
    config.parse(Course, [], [*TWO, binding])
  assert binding.split('=')[1].strip()[:4] in str(caught.value)


def test_a_module_that_a_recipe_imports_and_is_not_there_is_named():
  with pytest.raises(ModuleNotFoundError, match='no_such_module'):
    course('import no_such_module')


def test_an_include_of_itself_is_refused(tmp_path):
  recipe = tmp_path / 'recipe.gin'
  recipe.write_text("include 'recipe.gin'\n")
  with pytest.raises(ValueError, match='includes itself'):
    config.parse(Course, [str(recipe)])


def test_a_missing_file_names_the_nearest_there(tmp_path):
  (tmp_path / 'quickstart.gin').write_text('')
  with pytest.raises(FileNotFoundError, match=r"quikstart.gin' in .*Nearest: 'quickstart.gin'"):
    config.parse(Course, [str(tmp_path / 'quikstart.gin')])
  with pytest.raises(FileNotFoundError, match=r'No .gin file is there'):
    config.parse(Course, [str(tmp_path / 'none' / 'a.gin')])


def test_errors_carry_file_and_line(tmp_path):
  recipe = tmp_path / 'recipe.gin'
  for last, kind in [
    ('Course.sead = 3', ValueError),
    ('Course.seed = @Phaze()', ValueError),
    ('Course.seed = "3"', TypeError),
    ('Rise.peak = 3', ValueError),
  ]:
    recipe.write_text('\n'.join([*TWO, last]))
    with pytest.raises(kind) as caught:
      config.parse(Course, [str(recipe)])
    message = str(caught.value)
    assert f'{recipe}:4' in message or f'"{recipe}", line 4' in message.replace('" line', '", line')
  recipe.write_text('\n'.join([*TWO, 'Course.seed = = 3']))
  with pytest.raises(SyntaxError, match='line 4'):
    config.parse(Course, [str(recipe)])


def test_an_unknown_class_names_the_nearest():
  assert "no configurable 'Phaze'. Nearest: 'Phase'." in refused(ValueError, 'Phaze.tokens = 3')
  message = refused(ValueError, base=['Course.phases = [@Phaze()]'])
  assert "no configurable 'Phaze'. Nearest: 'Phase'." in message


def test_a_misspelt_field_names_the_nearest():
  message = refused(ValueError, 'Phase.token = 3')
  assert "Phase.token is no field. Nearest: 'tokens'." in message


def test_a_wrongly_typed_binding_names_it_and_its_place():
  message = refused(TypeError, "pretrain/Phase.tokens = '3'")
  assert "Phase.tokens is '3' (str): it is an int." in message
  assert "pretrain/Phase.tokens = '3'" in message
  assert "scope 'pretrain'" in message


def test_a_value_out_of_range_names_its_place():
  message = refused(ValueError, 'Phase.rise = @Rise()', 'Rise.peak = -2')
  assert 'Rise.peak is -2.0' in message
  assert "the binding 'Rise.peak = -2'" in message


def test_a_missing_required_field_is_named_with_its_scope():
  message = refused(TypeError, base=TWO[:2])
  assert 'Phase.tokens has no value and no default: it is an int.' in message
  assert "scope 'anneal'" in message


def test_a_reference_that_is_not_called_says_so():
  message = refused(TypeError, 'Phase.rise = @Rise', 'Rise.peak = 1.0')
  assert 'write @Rise()' in message


def test_a_binding_of_a_scope_that_is_never_made_is_refused():
  message = refused(ValueError, 'aneal/Phase.name = "last"')
  assert 'aneal/Phase.name' in message
  assert "Nearest: 'anneal/Phase'" in message


def test_a_binding_of_a_class_that_is_never_made_is_refused():
  message = refused(ValueError, 'Rise.peak = 0.5')
  assert 'Rise.peak' in message
  assert (
    'nothing refers to @Rise(), as in Phase.rise = @Rise().' in message
  )  # the default's Rise is made by Python, not by gin


def test_a_binding_hidden_by_longer_scopes_is_refused():
  message = refused(ValueError, 'Phase.tokens = 1')
  assert 'every Phase takes tokens from a binding with a longer scope' in message


def test_all_unused_bindings_are_named_at_once():
  message = refused(ValueError, 'aneal/Phase.name = "a"', 'Rise.peak = 0.5', 'WIDTH = 3')
  assert all(name in message for name in ('aneal/Phase.name', 'Rise.peak', 'WIDTH'))


def test_a_macro_holds_within_its_file(tmp_path):
  (tmp_path / 'sizes.gin').write_text('SEED = 3\nCourse.seed = %SEED\n')
  recipe = tmp_path / 'recipe.gin'
  recipe.write_text("include 'sizes.gin'\n" + '\n'.join(TWO))
  assert config.parse(Course, [str(recipe)]).seed == 3
  assert config.parse(Course, [str(recipe)], ['SEED = 4']).seed == 4
  (tmp_path / 'sizes.gin').write_text('SEED = 3\n')
  recipe.write_text("include 'sizes.gin'\nCourse.seed = %SEED\n" + '\n'.join(TWO))
  with pytest.raises(ValueError, match=r'%SEED is not bound in .*recipe.gin'):
    config.parse(Course, [str(recipe)])


def test_dynamic_registration_is_refused():
  message = refused(ValueError, 'from __gin__ import dynamic_registration')
  assert 'not allowed' in message


def test_a_root_that_is_no_configurable_is_refused():
  with pytest.raises(TypeError, match='not marked @configurable'):
    config.parse(collections.OrderedDict)


# ── plain forms ─────────────────────────────────────────────────────────────────


def test_resolved_holds_every_field_with_defaults_and_survives_json():
  plain = config.resolved(course())
  assert json.loads(json.dumps(plain)) == plain
  assert list(plain) == ['@', 'phases', 'seed', 'note']
  assert plain['phases'][0] == {
    '@': 'Phase',
    'tokens': 2_000_000,
    'weights': {'en': 1.0},
    'betas': [0.9, 0.95],
    'rise': {'@': 'Rise', 'peak': 1e-3, 'shape': 'cosine', 'warmup': None},
    'packed': True,
    'name': '',
  }


def test_every_changed_field_changes_the_resolved_config():
  phase = Phase(tokens=1)
  for change in (
    {'tokens': 2},
    {'weights': {'sw': 1.0}},
    {'betas': (0.8, 0.95)},
    {'rise': Rise(peak=2.0)},
    {'packed': False},
    {'name': 'b'},
  ):
    found = config.differences(
      config.resolved(phase), config.resolved(dataclasses.replace(phase, **change))
    )
    assert found
    assert all(line.startswith(next(iter(change))) for line in found)


def test_differences_name_paths_and_both_values():
  old = config.resolved(course())
  assert config.differences(old, json.loads(json.dumps(old))) == []
  new = config.resolved(course('Course.seed = 3', 'anneal/Phase.rise = @Rise()', 'Rise.peak = 2'))
  assert config.differences(old, new) == [
    'phases[1].rise.peak: 0.001 → 2.0',
    'seed: 0 → 3',
  ]
  assert config.differences({'a': [1]}, {'a': [1, 2]}) == ['a[1]: absent → 2']
  assert config.differences({'a': True}, {'a': 1}) == ['a: true → 1']


def test_nearest():
  assert nearest('sw_fineweb', ['sw_fineweb2', 'tr_wiki']) == " Nearest: 'sw_fineweb2'."
  assert nearest('xyz', ['sw_fineweb2']) == ''
  assert nearest('RISE', ['Rise']) == " Nearest: 'Rise'."


def test_importing_config_imports_neither_jax_nor_orbax():
  code = (
    'import sys, jaxlink.config;'
    "print([m for m in sys.modules if m.split('.')[0] in ('jax', 'orbax', 'tensorflow', 'numpy')])"
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
  assert done.stdout.strip() == '[]', done.stderr
