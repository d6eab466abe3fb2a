"""Strange command lines, and strange YAML of the user's, drawn from a seed."""

import random
from dataclasses import dataclass, field
from pathlib import Path

# Every kind of value that the grammar of overrides, OmegaConf or a constructor may stumble over.
VALUES = [
    "", "null", "true", "-1", "0", "0.5", "1e9", "1000000000", f"{10**30}", "1e400", "nan",
    "-inf",
    "abc", "???", "'quoted'", "'open", '"', "\\", "a=b", "a b", "(", ")", "{", "}", "[", "]", "[[",
    "{a:1}", "{a:{b:{c:[1,{d:2}]}}}", "[1,2]", "[null]", "[abc]", "[!x]", "{a:}", "a,b", "1,2",
    "[" * 60 + "]" * 60, "[" * 3000 + "]" * 3000, "x" * 20000, "été/日本", "\u202eabc", "🙂",
    "\x00",
    "a\nb", "\t", "~", "~/x", "%s%n", "$HOME", "`id`", "!!python/object:os.system", "../../x",
    "${seed}", "${data}", "${nothing}", "${no.thing}", "${.}", "${..}", "${...x}", "${", "${}",
    "${a:}", "${oc.env:NO_SUCH_VARIABLE}", "${oc.env:NO_SUCH_VARIABLE,3}", "${oc.env:HOME}",
    "${add:1}", "${add:a,b}", "${add:${seed},1}", "${part:1}", "${part:1,0}", "${part:a,b}",
    "${hydra:runtime.cwd}", "${hydra:no.thing}", "${oc.decode:'[1'}", "${oc.create:{a:1}}",
    "${oc.dict.keys:data}", "${oc.select:nothing,7}", "${oc.deprecated:seed}", "${now:%Y}",
    "choice(1,2)", "range(1,3)", "glob(*)", "interval(0,1)", "int(1.5)", "str(1)", "float(x)",
    "sort(2,1)", "shuffle(1,2)", "tag(x,1)", "json_str(1)", "foo(1)", "extend_list(1)",
]  # fmt: skip
KEYS = [
    "seed", "task", "monitor", "objectives", "ckpt_path", "resume", "dense_epochs", "output_dir",
    "recovery_epochs", "data", "data.train_images", "data.image_size", "data.batch_size",
    "data._target_", "model", "model.num_classes", "model.lr", "model.weights", "model.size",
    "model.names", "model._target_", "trainer", "trainer.max_epochs", "trainer.devices",
    "trainer.precision", "trainer.plugins", "callbacks", "callbacks.ema", "callbacks.ema.decay",
    "callbacks.best_checkpoint.dirpath", "logger", "logger.csv", "pruning", "experiment",
    "pruning.masker", "pruning.masker.mac_target", "pruning.masker.layers", "criterion",
    "pruning.masker.criterion", "pruning.report", "switch",
]  # fmt: skip
HYDRA = [
    "hydra/job_logging=disabled", "hydra/job_logging=none", "hydra/hydra_logging=disabled",
    "hydra/job_logging=nothing", "hydra/launcher=nothing", "hydra/sweeper=nothing", "hydra=x",
    "hydra.verbose=true", "hydra.verbose=abc", "hydra.job.chdir=true", "hydra.job.name=a/b",
    "hydra.job.name=${nothing}", "hydra.output_subdir=null", "hydra.mode=RUN", "hydra.mode=abc",
    "hydra.searchpath=[nothing]", "hydra.searchpath=abc", "hydra.searchpath=[pkg://no.such]",
    "hydra.searchpath=[pkg://lightning_prune.conf]", "hydra.callbacks=null", "hydra.callbacks=3",
    "hydra.callbacks.sweep_table=null", "hydra.callbacks.sweep_table._target_=no.Such",
    "+hydra.zzz=1", "hydra.zzz=1", "hydra.job.env_set.A=1", "hydra.job.env_copy=[NO_SUCH]",
    "hydra.runtime.cwd=/", "~hydra.job", "~hydra",
]  # fmt: skip
LINES = [
    "--cfg", "--resolve", "--mac_target", "-x", "--config-name=nothing", "--config-dir=nothing",
    "--run --multirun", "seed", "=", "=1", ".=1", "a..b=1", ".seed=1", "seed.=1", "seed[0]=1",
    "model.names[0]=a", "[seed]=1", "+=1", "++=1", "~", "~~seed", "~seed=9", "~data", "~model.lr",
    "seed@x=1", "data@=digits", "data@x.y=digits", "+data@x=digits", "data/x=1", "/data=digits",
    "data=/digits", "data=digits.yaml", "data=../data/digits", "@=1", "-", "--", "''=1", "a b=1",
    "été=1", "+été=1", "seed=1=2", "seed==1", "+pruning=[channel,channel]", "pruning=[]",
    "pruning=[[channel]]", "+experiment=[digits_quick,neural_response]", "data=[digits,digits]",
    "model=yolov8,yolov8_reset", "++data=digits", "++pruning=channel", "+pruning@x=channel",
]  # fmt: skip
CYCLES = [
    ["seed=${dense_epochs}", "dense_epochs=${seed}"],
    ["seed=${seed}"],
    ["data=${data}"],
    ["model.lr=${model}"],
    ["+a=${b}", "+b=${c}", "+c=${a}"],
    ["output_dir=${output_dir}/x"],
    ["hydra.run.dir=${output_dir}"],
    ["monitor=${callbacks.best_checkpoint.monitor}"],
    ["trainer.max_epochs=${add:${trainer.max_epochs},1}"],
]
_ROWS = "".join(f"b{n + 1}: &b{n + 1} [{', '.join([f'*b{n}'] * 9)}]\n" for n in range(12))
YAML = {
    "bomb": f"b0: &b0 [x, x]\n{_ROWS}",
    "itself": "a: &a [*a]\n",
    "merge": "a: &a {x: 1}\nb: {<<: *a, <<: *a}\n",
    "deep": "a: " + "[" * 5000 + "]" * 5000 + "\n",
    "deep_blocks": "".join(f"{' ' * n}a{n}:\n" for n in range(300)),
    "broken": "a: [1, 2\nb: }\n",
    "tabs": "a:\n\tb: 1\n",
    "tag": "a: !!python/object/apply:os.system ['true']\n",
    "own_tag": "a: !thing 3\n",
    "list": "- 1\n- 2\n",
    "scalar": "3\n",
    "empty": "",
    "nul": "a: \x00\n",
    "twice": "seed: 1\nseed: 2\n",
    "two_documents": "a: 1\n---\nb: 2\n",
    "numbers": f"a: {10**30}\nb: 1e400\nc: .nan\nd: 1:2:3\ne: 2020-13-45\n? [1, 2]\n: 3\n",
    "keys": "1: a\ntrue: b\nnull: c\n1.5: d\n",
    "huge_number": f"a: {'9' * 5000}\n",
    "self_default": "defaults:\n  - self_default\n",
    "lost_default": "defaults:\n  - /no/such: thing\n",
    "bad_defaults": "defaults: 3\n",
    "odd_defaults": "defaults:\n  - 3\n  - [a]\n  - {a: {b: c}}\n",
    "package": "# @package ..\na: 1\n",
    "global": "# @package _global_\nseed: abc\nmodel: 3\n",
    "unknown_global": "# @package _global_\nmodle:\n  _target_: torch.nn.Linear\n",
    "reference": "a: ${oc.env:NO_SUCH_VARIABLE}\nb: ${c}\nc: ${b}\n",
    "target": "_target_: os.system\n_args_: ['true']\n",
    "latin": "a: caf\xe9\n",
    "long_line": f"a: '{'x' * 1_000_000}'\n",
}


@dataclass
class Composition:
    """A command line, with the files of the user that it names.

    Attributes:
        words: The arguments; `{folder}` in them stands for where the files are.
        files: Name of a file in that folder -> content.
    """

    words: list[str]
    files: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> list[str]:
        """Write the files, return the arguments."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode("latin-1", "replace"))
        return [word.replace("{folder}", str(folder)) for word in self.words]


def composition(seed: int) -> Composition:
    """Draw one; the same seed gives the same."""
    draw = random.Random(seed)
    kind = draw.choice(["value"] * 5 + ["key", "line", "cycle", "hydra", "yaml", "yaml", "several"])
    recipe = draw.choice([[], ["+pruning=channel"], ["pruning=sequential_activation"]])
    if kind == "line":
        return Composition([*recipe, *draw.choice(LINES).split()])
    if kind == "cycle":
        return Composition([*recipe, *draw.choice(CYCLES)])
    if kind == "hydra":
        return Composition([*recipe, draw.choice(HYDRA)])
    if kind == "yaml":
        name = draw.choice(sorted(YAML))
        group, sign = draw.choice([("mine", "+"), ("data", ""), ("pruning", ""), ("model", "")])
        words = ["--config-dir", "{folder}", f"{sign}{group}={name}"]
        return Composition(words, {f"{group}/{name}.yaml": YAML[name]})
    if kind == "several":
        return Composition([*recipe, *(_word(draw) for _ in range(3))])
    if kind == "key":
        key = _misspelt(draw, draw.choice(KEYS))
        return Composition([*recipe, f"{key}={draw.choice(VALUES)}"])
    return Composition([*recipe, _word(draw)])


def _word(draw: random.Random) -> str:
    sign = draw.choice(["", "", "", "+", "++", "~"])
    return f"{sign}{draw.choice(KEYS)}={draw.choice(VALUES)}"


def _misspelt(draw: random.Random, key: str) -> str:
    place = draw.randrange(len(key))
    return draw.choice(
        [
            key[:place] + key[place + 1 :],
            key[:place] + draw.choice("xX_-./[ é") + key[place:],
            key.upper(),
            key.replace("_", "-"),
            key.rpartition(".")[2],
            f"--{key}",
            f"{key}.{key}",
        ]
    )
