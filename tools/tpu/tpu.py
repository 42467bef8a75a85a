"""`python tools/tpu/tpu.py`: the commands that train on Cloud TPUs, from the request to the deletion.

  python tools/tpu/tpu.py create  pod --zone=us-east5-a --accelerator=v5p-64 --spot
  python tools/tpu/tpu.py setup   pod --zone=us-east5-a --cache=gs://BUCKET/cache --bucket=BUCKET
  python tools/tpu/tpu.py launch  pod --zone=us-east5-a -- --gin_file=gin/1b_link.gin --xla_flags=v5p
  python tools/tpu/tpu.py follow  pod --zone=us-east5-a
  python tools/tpu/tpu.py stop    pod --zone=us-east5-a
  python tools/tpu/tpu.py delete  pod --zone=us-east5-a

The same for one machine (v6e-8), a slice of a pod (v5p-64) and several slices (--slices=2). `watch` does
all of it and again after each preemption; `xpk` starts a container on a GKE cluster instead.

Prints the commands, and runs them with --go. They are gcloud's and xpk's own: README.md beside this file
has the pages that they were checked against.

Easy to get wrong: the number in a name. v5p-64 has 64 TensorCores, 32 chips and so 32 JAX devices;
v5litepod-64 and v6e-64 have 64 chips. And: what was created costs until it is deleted, trained on or not.
"""

import argparse
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from accelerators import Accelerator

Command = list[str]

_WAITED = 60  # seconds between two looks of `watch`
_GONE = ('SUSPENDED', 'FAILED')
_COMING = (
  'ACCEPTED',
  'WAITING_FOR_RESOURCES',
  'PROVISIONING',
  'CREATING',
  'SUSPENDING',
  'DELETING',
)
_ARCHIVE = '/tmp/jaxlink.tar.gz'


# ── commands ────────────────────────────────────────────────────────────────────


def create(args: argparse.Namespace) -> list[Command]:
  """Requests the machines; they come when there are some."""
  nodes = [f'--node-id={args.name}']
  if args.slices > 1:
    nodes = [f'--node-count={args.slices}', f'--node-prefix={args.name}']
  command = [
    *_resource('create', args), f'--accelerator-type={args.accelerator.name}',
    f'--runtime-version={args.accelerator.generation.runtime}', *nodes,
  ]  # fmt: skip
  command += ['--spot'] if args.spot else []
  command += ['--reserved'] if args.reserved else []
  command += [f'--valid-until-duration={args.valid_until}'] if args.valid_until else []
  return [command]


def status(args: argparse.Namespace) -> list[Command]:
  """Tells the request's state: ACTIVE once the machines are there."""
  return [[*_resource('describe', args), '--format=value(state.state)']]


def setup(args: argparse.Namespace) -> list[Command]:
  """Copies the committed code to all machines, installs, copies the caches, mounts the bucket."""
  target = f'{args.name}:jaxlink.tar.gz'
  commands = [
    ['git', 'archive', '--format=tar.gz', f'--output={_ARCHIVE}', 'HEAD'],
    [*_gcloud('scp'), _ARCHIVE, target, *_where(args), '--node=all', '--worker=all'],
    _on_all(
      args,
      'mkdir -p ~/jaxlink && tar -xzf ~/jaxlink.tar.gz -C ~/jaxlink && bash ~/jaxlink/tools/tpu/install.sh',
    ),
  ]
  if args.cache:
    copy = f'mkdir -p ~/cache && gcloud storage rsync --recursive {args.cache} ~/cache'
    commands.append(_on_all(args, copy))
  if args.bucket:
    commands.append(_on_all(args, f'bash ~/jaxlink/tools/tpu/mount.sh {args.bucket} ~/bucket'))
  return commands


def launch(args: argparse.Namespace) -> list[Command]:
  """Starts the training command on all machines, and again when it fails."""
  loop = (
    f'bash tools/tpu/keep_running.sh {args.tries} {shlex.join(_train(".venv/bin/python", args))}'
  )
  return [_on_all(args, f'cd ~/jaxlink && nohup {loop} >> ~/jaxlink.log 2>&1 < /dev/null &')]


def follow(args: argparse.Namespace) -> list[Command]:
  """Shows the log of process 0 as it grows."""
  return [_ssh(args, 'tail -n 100 -F ~/jaxlink.log', '0', '0')]


def stop(args: argparse.Namespace) -> list[Command]:
  """Ends the run after a checkpoint, and returns when it has; the machines stay, and cost."""
  signal = 'pid=$(cat ~/jaxlink.pid) && kill -TERM "$pid"'
  return [_on_all(args, f'{signal} && while kill -0 "$pid" 2> /dev/null; do sleep 1; done')]


def delete(args: argparse.Namespace) -> list[Command]:
  """Deletes the machines and the request: from here on they cost nothing."""
  return [[*_resource('delete', args), '--force', '--quiet']]


def xpk(args: argparse.Namespace) -> list[Command]:
  """Starts the container on a GKE cluster that xpk has made."""
  command = [
    'xpk', 'workload', 'create', f'--cluster={args.cluster}', f'--workload={args.name}', *_where(args),
    f'--tpu-type={args.accelerator.name}', f'--num-slices={args.slices}',
    f'--docker-image={args.image}', f'--command={shlex.join(_train("python", args))}',
    # xpk starts anew after 143, a preemption, by itself; 1 is what is left when another host is gone.
    f'--max-restarts={args.tries}', '--restart-on-exit-codes=1',
    '--termination-grace-period-seconds=120',
  ]  # fmt: skip
  return [command + [f'--storage={name}' for name in args.storage]]


def xpk_delete(args: argparse.Namespace) -> list[Command]:
  """Ends a workload; the cluster stays, and costs."""
  return [
    ['xpk', 'workload', 'delete', f'--cluster={args.cluster}', f'--workload={args.name}', *_where(args)]
  ]  # fmt: skip


def _train(python: str, args: argparse.Namespace) -> Command:
  return [python, '-m', 'jaxlink.train', *args.train, '--distributed']


def _gcloud(verb: str) -> Command:
  return ['gcloud', 'compute', 'tpus', 'queued-resources', verb]


def _resource(verb: str, args: argparse.Namespace) -> Command:
  return [*_gcloud(verb), args.name, *_where(args)]


def _where(args: argparse.Namespace) -> Command:
  return [f'--zone={args.zone}'] + ([f'--project={args.project}'] if args.project else [])


def _on_all(args: argparse.Namespace, command: str) -> Command:
  return _ssh(args, command, 'all', 'all')


def _ssh(args: argparse.Namespace, command: str, node: str, worker: str) -> Command:
  return [
    *_resource('ssh', args), f'--node={node}', f'--worker={worker}', f'--command={command}',
  ]  # fmt: skip


# ── watch ───────────────────────────────────────────────────────────────────────


def watch(
  args: argparse.Namespace,
  *,
  run: Callable[[Command], None],
  ask: Callable[[Command], str | None],
  sleep: Callable[[float], None] = time.sleep,
) -> None:
  """Keeps a run going on machines that may be taken away, until it is complete, and deletes them.

  Started anew, it goes on watching.

  Args:
    args: of all of `create`, `setup` and `launch`.
    run: runs a command, and raises where it fails.
    ask: returns what a command printed; None where it failed.
    sleep: takes seconds.

  Raises:
    ValueError: the machines were taken away more often than `args.requests` allows, or the run ends
      with an error on machines that are there.
  """
  requests, told = 0, None
  while True:
    state = ask(status(args)[0])
    if state != told:
      print(f'{time.strftime("%H:%M:%S")} {args.name}: {state or "not there"}', flush=True)
      told = state
    if state is None or state in _GONE:
      if requests == args.requests:
        raise ValueError(
          f'{args.name} is {state or "not there"} after {requests} requests: --requests allows no more.'
        )
      requests += 1
      if state:
        run(delete(args)[0])
      run(create(args)[0])
    elif state == 'ACTIVE':
      code = ask(_ssh(args, 'cat ~/jaxlink.status 2> /dev/null || echo new', '0', '0'))
      if code == '0':
        print('complete')
        run(delete(args)[0])
        return
      if code == 'new':
        for command in (*setup(args), *launch(args)):
          run(command)
      elif code not in (None, 'running'):  # None: unreachable, so its state tells more, soon
        raise ValueError(
          f'the run has ended with code {code}; its log: {shlex.join(follow(args)[0])}. '
          f'The machines are still there, and cost: {shlex.join(delete(args)[0])}'
        )
    elif state not in _COMING:
      raise ValueError(f'{args.name} is in the state {state!r}, which is not known here.')
    sleep(_WAITED)


def _plan_of_watch(args: argparse.Namespace) -> list[Command]:
  return [*create(args), *status(args), *setup(args), *launch(args), *delete(args)]


# ── the command line ────────────────────────────────────────────────────────────


def main(argv: Sequence[str] | None = None) -> int:
  try:
    args = _arguments(argv)
    if args.command is watch:
      if args.go:
        watch(args, run=_run, ask=_ask)
        return 0
      commands = _plan_of_watch(args)
    else:
      commands = args.command(args)
    for command in commands:
      if args.go:
        _run(command)
      else:
        print(shlex.join(command))
    if not args.go:
      print('printed only: --go runs them', file=sys.stderr)
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    return 130
  return 0


def _run(command: Command) -> None:
  print(shlex.join(command), flush=True)
  try:
    code = subprocess.run(command, check=False).returncode
  except FileNotFoundError:
    raise ValueError(f'{command[0]} is not installed here.') from None
  if code:
    raise ValueError(f'code {code} from: {shlex.join(command)}')


def _ask(command: Command) -> str | None:
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode == 0:
    return (done.stdout.strip().splitlines() or [''])[-1]  # ssh may greet before
  if 'ssh' in command or 'NOT_FOUND' in done.stderr:
    return None
  raise ValueError(f'{done.stderr.strip()} from: {shlex.join(command)}')


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
  given = list(sys.argv[1:] if argv is None else argv)
  train = given[given.index('--') + 1 :] if '--' in given else []
  parser = argparse.ArgumentParser(
    prog='python tools/tpu/tpu.py', description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )  # fmt: skip
  commands = parser.add_subparsers(required=True, metavar='COMMAND')
  for command in (create, status, setup, launch, follow, stop, delete, watch, xpk, xpk_delete):
    _add(commands, command)
  args = parser.parse_args(given[: given.index('--')] if '--' in given else given)
  args.train = train
  _check(args)
  return args


def _add(commands, command: Callable) -> None:
  summary = command.__doc__.splitlines()[0]
  parser = commands.add_parser(command.__name__, help=summary, description=summary)
  parser.set_defaults(command=command, accelerator=None)
  parser.add_argument('name', help='of the request, its machines or the workload')
  parser.add_argument('--zone', required=True, help='such as us-east5-a')
  parser.add_argument('--project', default='', help="default: gcloud's")
  parser.add_argument(
    '--go', action='store_true', help='run the commands; without it they are printed'
  )
  if command in (create, watch, xpk):
    parser.add_argument(
      '--accelerator', required=True, help='such as v5p-64, v5litepod-256, v6e-64'
    )
    parser.add_argument(
      '--slices', type=int, default=1, help='several lie along MeshConfig.data (1)'
    )
  if command in (create, watch):
    price = parser.add_mutually_exclusive_group()
    price.add_argument('--spot', action='store_true', help='cheap, and taken away at any time')
    price.add_argument('--reserved', action='store_true', help="from the project's reservation")
    parser.add_argument('--valid_until', default='', metavar='6h', help='when the request lapses')
  if command in (setup, watch):
    parser.add_argument(
      '--cache', default='', metavar='gs://…', help='copied to ~/cache of each host'
    )
    parser.add_argument('--bucket', default='', help='mounted at ~/bucket of each host')
  if command in (launch, watch, xpk):
    parser.add_argument(
      '--tries', type=int, default=10, help='starts in a row that fail early (10)'
    )
    parser.usage = '%(prog)s NAME --zone=ZONE [OPTIONS] -- --gin_file=RECIPE [MORE]'
    parser.epilog = (
      'What follows -- are the arguments of python -m jaxlink.train; --distributed is added.'
    )
  if command is watch:
    parser.add_argument(
      '--requests', type=int, default=20, help='how often machines are asked for (20)'
    )
  if command in (xpk, xpk_delete):
    parser.add_argument('--cluster', required=True, help='of xpk cluster create')
  if command is xpk:
    parser.add_argument('--image', required=True, help='of tools/tpu/Dockerfile, pushed by you')
    parser.add_argument(
      '--storage', action='append', default=[], help='of xpk storage attach; repeatable'
    )


def _check(args: argparse.Namespace) -> None:
  """Raises ValueError for a value that the cloud would refuse, later and less plainly."""
  values = vars(args)
  if not re.fullmatch(r'[a-z]([-a-z0-9]{0,38}[a-z0-9])?', args.name):
    raise ValueError(
      f'the name is {args.name!r}: small letters, digits and dashes, a letter first, at most 40.'
    )
  if not re.fullmatch(r'[a-z]+-[a-z]+\d+-[a-z]\w*', args.zone):
    raise ValueError(
      f'--zone is {args.zone!r}: a region, a dash and a letter, such as us-east5-a or europe-west4-b.'
    )
  if args.accelerator is not None:
    args.accelerator = Accelerator(args.accelerator)
    _say_size(args)
  for name in ('slices', 'tries', 'requests'):
    if values.get(name, 1) < 1:
      raise ValueError(f'--{name} is {values[name]}: 1 or more.')
  if values.get('valid_until') and not re.fullmatch(r'\d+[smhd]', args.valid_until):
    raise ValueError(
      f'--valid_until is {args.valid_until!r}: a number and s, m, h or d, such as 6h.'
    )
  if values.get('cache') and not re.fullmatch(
    r'gs://[a-z0-9][-_.a-z0-9]+(/[-_.\w]+)*/?', args.cache
  ):
    raise ValueError(f'--cache is {args.cache!r}: gs://, a bucket and a folder in it.')
  if values.get('bucket') and not re.fullmatch(r'[a-z0-9][-_.a-z0-9]{1,61}[a-z0-9]', args.bucket):
    raise ValueError(f'--bucket is {args.bucket!r}: a name without gs:// and without folder.')
  _check_train(args)


def _check_train(args: argparse.Namespace) -> None:
  if args.command not in (launch, watch, xpk):
    if args.train:
      raise ValueError(f'{args.command.__name__} takes nothing after --.')
    return
  if not any(argument.startswith('--gin_file') for argument in args.train):
    raise ValueError(
      'after -- come the arguments of jaxlink.train, such as -- --gin_file=gin/1b.gin'
    )
  flags = next((a.partition('=')[2] for a in args.train if a.startswith('--xla_flags=')), 'none')
  right = args.accelerator.generation.xla_flags if args.accelerator else flags
  if flags not in ('none', right):
    raise ValueError(f'--xla_flags is {flags}, and {args.accelerator.name} takes {right} or none.')


def _say_size(args: argparse.Namespace) -> None:
  one, n = args.accelerator, args.slices
  print(
    f'{n} × {one.name} ({one.generation.counted} in the name): {n * one.chips} devices on '
    f'{n * one.hosts} hosts; the sizes of MeshConfig multiply to {n * one.chips}'
    + (f', and data is a multiple of {n}' if n > 1 else ''),
    file=sys.stderr,
  )


if __name__ == '__main__':
  sys.exit(main())
