"""Names of other tools, and names in the wrong section: the hint says what to write instead."""

import pytest

from fasttune.errors import RecipeError
from fasttune.recipe import Recipe, aliases, fields, load
from fasttune.recipe.messages import FIELDS, nested

DATA = {"data": {"train": "reviews.csv"}}


def error_text(source, overrides=()):
    with pytest.raises(RecipeError) as caught:
        load(source, overrides)
    assert caught.value.exit_code == 3
    return str(caught.value)


FOREIGN = """
evaluation_strategy=epoch        evaluation.eval_strategy=epoch
warmup_ratio=0.1                 training.warmup_steps=0.1; a value below 1 is a fraction of all steps
fp16=true                        training.precision=fp16; a single setting chooses the precision
mixed_precision=bf16             training.precision=bf16
torch_dtype=float16              training.precision=fp16; for the forward pass; weights stay in fp32
epochs=3                         training.num_train_epochs=3
lr=2e-5                          training.learning_rate=2.0e-05
lr=2e5                           training.learning_rate
batch=16                         training.batch_size=16; examples per optimizer step over all devices
model_name_or_path=bert          model=bert
dataset_name=imdb                data.train=imdb
train_file=a.csv                 data.train=a.csv
validation_file=a.csv            data.validation=a.csv
test_file=a.csv                  data.test=a.csv
text_column=t                    data.columns.text=t
text_column_name=t               data.columns.text=t
text_column_names=t              data.columns.text=t; a single column
label_column_name=l              data.columns.label=l
max_seq_length=128               preprocessing.max_length=128
pad_to_max_length=true           preprocessing.padding=max_length; one of none, longest, max_length
output_dir=out                   output.dir=out
no_cuda=true                     training.device=cpu
use_cpu=true                     training.device=cpu
data_seed=1                      data.seed=1
torch_compile=true               training.compile=true; auto measures whether it is faster
full_determinism=true            training.deterministic=true; for GPUs; runs on a CPU repeat without it
metric=f1                        evaluation.metrics=[f1]; a list
training.report_to=none          tracking.report_to=none
report_to=tensorboard            tracking.report_to=tensorboard
training.eval_strategy=no        evaluation.eval_strategy='no'
data.text=Review                 data.columns.text=Review
data.max_length=64               preprocessing.max_length=64
training.task=text-classification  task=text-classification
seed=1                           data.seed or training.seed
""".strip().splitlines()


@pytest.mark.parametrize("line", FOREIGN, ids=lambda line: line.split()[0])
def test_foreign_and_misplaced_names(line):
    override, hint = line.split(None, 1)
    for prefix in {"", "training."} if "." not in override else {""}:
        if prefix + override.split("=")[0] in {".".join(path) for path in FIELDS}:
            continue
        assert error_text(DATA, [prefix + override]).split("\n  hint: ")[1] == f"write {hint}"


def test_a_batch_size_per_device_is_explained():
    assert error_text(DATA, ["per_device_train_batch_size=8"]) == (
        "E300 override per_device_train_batch_size=8: fasttune calls this setting training.batch_size\n"
        "  hint: write training.batch_size=8; multiply it by the number of devices and accumulation steps"
    )


LEFT_OUT = [
    "gradient_accumulation_steps",
    "per_device_eval_batch_size",
    "dataloader_num_workers",
    "resume_from_checkpoint",
    "optim",
    "do_train",
    "overwrite_output_dir",
    "load_best_model_at_end",
    "greater_is_better",
    "group_by_length",
    "push_to_hub",
    "logging_dir",
    "do_eval",
    "eval_accumulation_steps",
    "auto_find_batch_size",
    "do_predict",
    "trust_remote_code",
]


@pytest.mark.parametrize("name", LEFT_OUT)
def test_foreign_names_without_a_counterpart(name):
    text = error_text(DATA, [f"training.{name}=1"])
    assert text.startswith(f"E300 override training.{name}=1: fasttune has no such setting\n")
    assert f"\n  hint: leave it out: {aliases.NAMES[name].why}" in text


def test_a_switch_that_is_off_is_left_out():
    assert error_text(DATA, ["no_cuda=false"]).endswith("hint: leave it out: the default applies")
    assert error_text(DATA, {"bf16": False}).endswith("hint: leave it out: the default applies")


def test_the_foreign_tables_fit_the_schema():
    names = {path[-1] for path, _ in fields()} | set(Recipe.model_fields)
    paths = {".".join(path) for path in FIELDS}
    assert not names & set(aliases.NAMES)
    for name, advice in aliases.NAMES.items():
        assert advice.write in paths if advice.write else advice.why, name
    for (path, written), meant in aliases.VALUES.items():
        value = [meant] if path == "evaluation.metrics" else meant
        load(nested({("data", "train"): "a", tuple(path.split(".")): value}))
        assert written != meant
