"""Files made to run code, to read what they should not, or to exhaust the reader. Each case: a folder -> a command line.

Whatever code runs would touch the file CANARY in the folder.
"""

# ruff: noqa: E501  a table of cases
from __future__ import annotations

import functools
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tiny import make_rows, save_tiny_model, write_csv

CANARY = "canary"
Case = Callable[[Path], list[str]]
MODELS: dict[str, Case] = {}
DATA: dict[str, Case] = {}
RECIPES: dict[str, Case] = {}


class Payload:
    """Unpickled, it touches the canary."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.folder / CANARY}",)


def bomb(folder: Path) -> bytes:
    return pickle.dumps(Payload(folder))


def code(folder: Path) -> str:
    return f"import pathlib\npathlib.Path({str(folder / CANARY)!r}).touch()\nclass Thing: pass\n"


def rows(folder: Path) -> str:
    return str(write_csv(folder / "rows.csv", make_rows(40)))


def command(folder: Path, data: str | Path | None = None, model: Path | None = None, *more: str) -> list[str]:
    how = ["training.max_steps=1", "training.device=cpu", "training.precision=fp32", "tracking.report_to=none"]
    model = model or save_tiny_model(folder / "model")
    return ["train", str(data or rows(folder)), f"model={model}", *how, *more, "--output", str(folder / "run")]


# --- models -------------------------------------------------------------------------------------------------------


def model_with(change: Callable[[Path, Path], None]) -> Case:
    def case(folder: Path) -> list[str]:
        model = save_tiny_model(folder / "model")
        change(folder, model)
        return command(folder, model=model)

    return case


def changed_json(file: str, **changes: Any) -> Case:
    def change(folder: Path, model: Path) -> None:
        (model / "evil.py").write_text(code(folder))
        path = model / file
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**content, **changes}))

    return model_with(change)


def only_pickle(name: str) -> Case:
    def change(folder: Path, model: Path) -> None:
        (model / "model.safetensors").unlink()
        (model / name).write_bytes(bomb(folder))

    return model_with(change)


def zipped_pickle(folder: Path, model: Path) -> None:
    (model / "model.safetensors").unlink()
    with zipfile.ZipFile(model / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", bomb(folder))
        archive.writestr("archive/version", "3\n")


def weights(content: bytes) -> Case:
    return model_with(lambda folder, model: (model / "model.safetensors").write_bytes(content) and None)


def header(description: Any, data: bytes = b"") -> bytes:
    text = json.dumps(description).encode()
    return struct.pack("<Q", len(text)) + text + data


def index_that_leaves(folder: Path, model: Path) -> None:
    (model / "model.safetensors").rename(folder / "elsewhere.safetensors")
    names = {"embeddings.word_embeddings.weight": "../../../../../../etc/passwd"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def weights_of_another_name(folder: Path, model: Path) -> None:
    """The one file that is no safetensors file and that transformers lets a configuration name."""
    (model / "model.safetensors").unlink()
    (model / "adapter_model.bin").write_bytes(bomb(folder))
    content = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**content, "transformers_weights": "adapter_model.bin"}))


def pickles_beside(folder: Path, model: Path) -> None:
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"):
        (model / name).write_bytes(bomb(folder))


def adapter_beside(folder: Path, model: Path) -> None:
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "evil/model", "auto_mapping": {"parent_library": "evil"}}
    (model / "adapter_config.json").write_text(json.dumps(adapter))
    (model / "adapter_model.bin").write_bytes(bomb(folder))


MAP = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForSequenceClassification"), "evil.Thing")
MODELS.update({
    "pickled weights": only_pickle("pytorch_model.bin"),
    "pickled weights in zip": model_with(zipped_pickle),
    "pickled weights of another name": only_pickle("model.pt"),
    "pickled weights of tensorflow's name": only_pickle("tf_model.h5"),
    "pickled weights of flax's name": only_pickle("flax_model.msgpack"),
    "pickle named safetensors": model_with(lambda folder, model: (model / "model.safetensors").write_bytes(bomb(folder)) and None),
    "pickles beside": model_with(pickles_beside),
    "adapter beside": model_with(adapter_beside),
    "auto_map": changed_json("config.json", auto_map=MAP),
    "auto_map of a type of its own": changed_json("config.json", auto_map=MAP, model_type="evil"),
    "auto_map of the hub": changed_json("config.json", auto_map={"AutoConfig": "evil/model--evil.Thing"}, model_type="evil"),
    "auto_map that trusts itself": changed_json("config.json", auto_map=MAP, trust_remote_code=True),
    "attention of the hub": changed_json("config.json", _attn_implementation_internal="evil/kernels"),
    "attention of the hub, public name": changed_json("config.json", attn_implementation="evil/kernels:evil"),
    "attention named": changed_json("config.json", _attn_implementation="evil/kernels"),
    "experts of the hub": changed_json("config.json", _experts_implementation_internal="evil/kernels"),
    "quantisation of its own": changed_json("config.json", quantization_config={"quant_method": "evil", "modules": "evil"}),
    "dtype that is code": changed_json("config.json", dtype="__import__('os').system('touch canary')"),
    "torch_dtype that is code": changed_json("config.json", torch_dtype="evil.Thing"),
    "activation that is code": changed_json("config.json", hidden_act="evil.Thing"),
    "architecture that is code": changed_json("config.json", architectures=["evil.Thing"]),
    "sub-configuration that trusts": changed_json("config.json", text_config={"auto_map": MAP, "trust_remote_code": True}),
    "custom pipelines": changed_json("config.json", custom_pipelines={"text-classification": {"impl": "evil.Thing"}}),
    "tokenizer's auto_map": changed_json("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Thing", "evil.Thing"]}),
    "tokenizer's class": changed_json("tokenizer_config.json", tokenizer_class="evil.Thing", auto_map={"AutoTokenizer": ["evil.Thing", None]}),
    "tokenizer's chat template": changed_json("tokenizer_config.json", chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    "tokenizer's vocabulary elsewhere": changed_json("tokenizer_config.json", vocab_file="../../../../etc/passwd"),
    "header longer than the file": weights(struct.pack("<Q", 1 << 40) + b"{}"),
    "header of 100 MB": weights(struct.pack("<Q", 100_000_001) + b"{" + b" " * 1000),
    "header that is no JSON": weights(struct.pack("<Q", 4) + b"evil"),
    "header of many tensors": weights(header({f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(50_000)})),
    "tensor behind the end": weights(header({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})),
    "tensor before the beginning": weights(header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}})),
    "tensors that overlap": weights(header({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, b"1234")),
    "tensor of an unknown kind": weights(header({"a": {"dtype": "OBJ", "shape": [1], "data_offsets": [0, 4]}}, b"1234")),
    "index that leaves the folder": model_with(index_that_leaves),
    "weights of another name": model_with(weights_of_another_name),
    "config of a negative number of layers": changed_json("config.json", num_hidden_layers=-1),
    "config nested deeply": model_with(lambda folder, model: (model / "config.json").write_text("[" * 100_000) and None),
    "vocabulary of negative size": changed_json("config.json", vocab_size=-5),
})  # fmt: skip


# --- data ---------------------------------------------------------------------------------------------------------


def data_of(name: str, content: Callable[[Path], bytes]) -> Case:
    def case(folder: Path) -> list[str]:
        path = folder / name
        path.write_bytes(content(folder))
        return command(folder, path)

    return case


def zip_of(members: dict[str, str]) -> Callable[[Path], bytes]:
    def content(folder: Path) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, text in members.items():
                archive.writestr(name, text)
        return file.getvalue()

    return content


def linking_tar(folder: Path) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        link = tarfile.TarInfo("rows.csv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return file.getvalue()


def pickled_array(folder: Path) -> bytes:
    import numpy as np

    file = io.BytesIO()
    np.save(file, np.array([Payload(folder)], dtype=object), allow_pickle=True)
    return file.getvalue()


def parquet_of(metadata: dict[str, bytes]) -> Callable[[Path], bytes]:
    def content(folder: Path) -> bytes:
        made = make_rows(40)
        table = pa.table({name: [row[name] for row in made] for name in made[0]})
        filled = {key: value or bomb(folder) for key, value in metadata.items()}
        field = pa.field("text", pa.string(), metadata=filled)
        table = table.cast(pa.schema([field, *list(table.schema)[1:]], metadata=filled))
        file = io.BytesIO()
        pq.write_table(table, file)
        return file.getvalue()

    return content


def script_beside(folder: Path) -> list[str]:
    place = folder / "set"
    place.mkdir()
    for name in ("set.py", "dataset.py", "loading.py", "__init__.py"):
        (place / name).write_text(code(folder))
    (place / "dataset_infos.json").write_text(
        json.dumps({"default": {"builder_name": "evil", "features": {"a": "evil.Thing"}}})
    )
    write_csv(place / "train.csv", make_rows(40))
    return command(folder, place)


def saved_by_datasets(folder: Path) -> list[str]:
    place = folder / "set"
    place.mkdir()
    (place / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "../../../../etc/passwd"}], "_fingerprint": "x"})
    )
    (place / "dataset_info.json").write_text(json.dumps({"features": {"text": {"_type": "evil.Thing"}}}))
    return command(folder, place)


RCE_TYPE = {"ARROW:extension:name": b"arrow.py_extension_type", "ARROW:extension:metadata": b""}
DATA.update({
    **{f"pickle as .{kind}": data_of(f"rows.{kind}", bomb) for kind in ("pkl", "pickle", "pt", "pth", "joblib", "bin", "csv", "jsonl", "json", "parquet", "arrow", "npy", "npz", "h5")},
    "pickled array": data_of("rows.npy", pickled_array),
    "pickle in a zip": data_of("rows.zip", lambda folder: zip_of({"rows.pkl": "x"})(folder)),
    "zip that leaves the folder": data_of("rows.zip", zip_of({"../../evil.csv": "text,label\na,b\n"})),
    "zip with an absolute path": data_of("rows.zip", zip_of({"/etc/evil.csv": "text,label\na,b\n"})),
    "tar with a link": data_of("rows.tar.gz", linking_tar),
    "parquet with a pickled type": data_of("rows.parquet", parquet_of(RCE_TYPE)),
    "parquet with pickled metadata": data_of("rows.parquet", parquet_of({"pandas": b"", "huggingface": b""})),
    "a loading script beside": script_beside,
    "a saved data set that leaves": saved_by_datasets,
    "a script as data": lambda folder: command(folder, (lambda path: path.write_text(code(folder)) and path)(folder / "rows.py")),
    "JSON nested deeply": data_of("rows.jsonl", lambda folder: b'{"text": ' + b"[" * 100_000 + b"\n"),
    "labels that are code": data_of("rows.csv", lambda folder: b"text,label\n" + b"".join(b'w%d,"__import__(""os"").system(""touch canary"")%d"\n' % (n, n % 2) for n in range(40))),
})  # fmt: skip


# --- recipes ------------------------------------------------------------------------------------------------------


def recipe_of(text: str) -> Case:
    def case(folder: Path) -> list[str]:
        path = folder / "recipe.yaml"
        path.write_text(text.replace("CANARY", str(folder / CANARY)).replace("ROWS", rows(folder)))
        return ["train", str(path), "--output", str(folder / "run")]

    return case


RECIPES.update({
    "an object of Python": recipe_of("data: !!python/object/apply:os.system ['touch CANARY']\n"),
    "a module of Python": recipe_of("data: {train: ROWS}\nmodel: !!python/module:os\n"),
    "a name of Python": recipe_of("data: {train: !!python/name:os.system }\n"),
    "a new object": recipe_of("!!python/object/new:subprocess.Popen [['touch', 'CANARY']]\n"),
    "a target as hydra has it": recipe_of("data: {train: ROWS, _target_: os.system}\n"),
    "a class path": recipe_of("data: {train: ROWS}\ntraining: {class_path: os.system, init_args: [touch CANARY]}\n"),
    "a metric that is code": recipe_of("data: {train: ROWS}\nevaluation: {metrics: ['os.system']}\n"),
    "a task that is code": recipe_of("task: os.system\ndata: {train: ROWS}\n"),
    "remote code trusted": recipe_of("data: {train: ROWS}\nmodel: evil/model\ntrust_remote_code: true\n"),
    "many laughs": recipe_of("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9))),
    "a shell in a path": recipe_of("data: {train: '; touch CANARY'}\n"),
    "a template": recipe_of("data: {train: \"{{ ''.__class__ }}\"}\n"),
})  # fmt: skip

# --- text that acts -------------------------------------------------------------------------------------------------

PAYLOADS = {
    "a title": "\x1b]0;owned\x07", "a clear screen": "\x1b[2J\x1b[Hevil", "a link": "\x1b]8;;http://evil\x07x\x1b]8;;\x07",
    "an 8-bit sequence": "\x9b31mevil\x9b0m", "a device string": "\x1bP$qm\x1b\\", "a picture": "\x1b_Gi=1;AAAA\x1b\\",
    "a query": "\x1b[6n\x1b[c", "a clipboard": "\x1b]52;c;ZXZpbA==\x07", "backspaces": "ok\x08\x08evil", "a bell": "\x07\x07",
    "an override": "\u202eevil\u202c", "an isolate": "\u2066evil\u2069", "zero width": "a\u200bb\ufeffc",
    "tag characters": "a\U000e0065\U000e0076", "a line separator": "a\u2028b", "markup of Markdown": "![x](http://evil/p.png) `b`",
    "markup of HTML": "<script>alert(1)</script><img src=x onerror=alert(1)>", "markup of rich": "[bold red]x[/] [link=http://evil]y[/link]",
    "a formula": '=HYPERLINK("http://evil")', "a heading": "b`\n\n# Injected\n",
}  # fmt: skip


def header_that_acts(folder: Path, payload: str) -> list[str]:
    (folder / "rows.csv").write_text(f"text,label,{quoted(payload)}\n" + "a,b,c\n" * 6)
    return ["show", str(folder / "rows.csv")]


def missing_column(folder: Path, payload: str) -> list[str]:
    (folder / "rows.csv").write_text(f"{quoted(payload)},{quoted('2' + payload)},n\na,b,c\nd,e,f\n")
    return command(folder, folder / "rows.csv")


def cell_that_acts(folder: Path, payload: str) -> list[str]:
    made = [{**row, "label": payload if number == 7 else row["label"]} for number, row in enumerate(make_rows(40))]
    names = "data.label_names=" + json.dumps(sorted({row["label"] for row in make_rows(40)}))
    return command(folder, write_csv(folder / "rows.csv", made), None, names)


def file_name_that_acts(folder: Path, payload: str) -> list[str]:
    (folder / "set").mkdir()
    for name in ("train", "odd"):
        write_csv(folder / "set" / f"{name}{payload.replace('/', '_')}.csv", make_rows(9))
    return ["show", str(folder / "set")]


def trained(folder: Path, payload: str) -> list[str]:
    """A run whose card, events and log name a label, a file and a licence."""
    first = make_rows(40)[0]["label"]
    made = [{**row, "label": payload if row["label"] == first else row["label"]} for row in make_rows(40)]
    (folder / "set").mkdir()
    write_csv(folder / "set" / f"{payload.replace('/', '_')}.csv", made)
    (folder / "set" / "README.md").write_text(f"---\nlicense: {json.dumps('cc-by-nc-4.0' + payload)}\n---\n")
    return command(folder, folder / "set")


def model_type_that_acts(folder: Path, payload: str) -> list[str]:
    return changed_json("config.json", model_type=payload)(folder)


def recipe_key_that_acts(folder: Path, payload: str) -> list[str]:
    return recipe_of(f"data: {{train: ROWS, {json.dumps(payload)}: 1}}\n")(folder)


def recipe_value_that_acts(folder: Path, payload: str) -> list[str]:
    return recipe_of(f"data: {{train: ROWS}}\nmodel: {json.dumps('org/' + payload)}\n")(folder)


def key_that_acts(folder: Path, payload: str) -> list[str]:
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": "a", payload: str(n)}) + "\n" for n in range(9)))
    return ["show", str(folder / "rows.jsonl")]


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


PLACES = {
    "a header": header_that_acts, "columns without a role": missing_column, "an unknown label": cell_that_acts,
    "a file's name": file_name_that_acts, "model_type": model_type_that_acts, "a recipe's key": recipe_key_that_acts, "a recipe's value": recipe_value_that_acts,
    "a key of JSON": key_that_acts,
}  # fmt: skip
TEXTS: dict[str, Case] = {
    f"{payload} in {place}": functools.partial(case, payload=text)
    for payload, text in PAYLOADS.items()
    for place, case in PLACES.items()
}
TRAINED: dict[str, Case] = {name: functools.partial(trained, payload=text) for name, text in PAYLOADS.items()}


# --- addresses ------------------------------------------------------------------------------------------------------

FOREIGN = (
    *(
        "reference://x::refs.json",
        "dask://127.0.0.1:1/rows.csv",
        "zip://rows.csv::evil.zip",
        "tar://rows.csv::evil.tar",
    ),
    *("simplecache::http://127.0.0.1:1/rows.csv", "filecache::memory://rows.csv", "blockcache::memory://rows.csv"),
    *(
        "ftp://127.0.0.1:1/rows.csv",
        "sftp://127.0.0.1:1/rows.csv",
        "ssh://127.0.0.1:1/rows.csv",
        "smb://127.0.0.1/x/rows.csv",
    ),
    *(
        "git://evil:rows.csv",
        "github://evil:evil@main/rows.csv",
        "generic://rows.csv",
        "dir://rows.csv",
        "data:text/csv,text",
    ),
    *(
        "webhdfs://127.0.0.1:1/rows.csv",
        "hdfs://127.0.0.1:1/rows.csv",
        "jupyter://127.0.0.1:1/rows.csv",
        "libarchive://a::b.7z",
    ),
    *(
        "http://127.0.0.1:1/rows.csv",
        "https://169.254.169.254/rows.csv",
        "hf://datasets/evil/rows/rows.csv",
        "evil/rows:train",
    ),
)
ADDRESSES: dict[str, Case] = {
    **{f"{address} as data": functools.partial(lambda folder, address: command(folder, address), address=address) for address in FOREIGN},
    **{
        f"{address} as mirror": functools.partial(lambda folder, address: command(folder, None, None, f"output.mirror={address}"), address=address)
        for address in FOREIGN
        if "://" in address
    },
}  # fmt: skip


def card_that_leads(path: object) -> Case:
    def case(folder: Path) -> list[str]:
        place = folder / "set"
        place.mkdir()
        write_csv(place / "train.csv", make_rows(40))
        configs = [{"config_name": "default", "data_files": [{"split": "train", "path": path}]}]
        (place / "README.md").write_text(f"---\n{json.dumps({'configs': configs})[1:-1]}\n---\n")
        return ["show", f"{place}:train"]

    return case


# --- bounds and packages that may be there --------------------------------------------------------------------------

BIG = {
    "num_labels": 10**9, "num_hidden_layers": 10**6, "hidden_size": 10**9, "vocab_size": 10**10, "num_attention_heads": 0,
    "max_position_embeddings": 10**10, "intermediate_size": 10**10, "type_vocab_size": 10**9,
}  # fmt: skip
KERNELS = (
    "kernels-community/evil",
    "evil/kernels",
    "flash_attention_2",
    "flash_attention_3",
    "flex_attention",
    "paged|sdpa",
)
BOUNDS: dict[str, Case] = {
    **{f"{name} {value}": changed_json("config.json", **{name: value}) for name, value in BIG.items()},
    **{f"attention {name}": changed_json("config.json", attn_implementation=name) for name in KERNELS},
    **{f"inner attention {name}": changed_json("config.json", _attn_implementation_internal=name) for name in KERNELS},
    "experts": changed_json("config.json", experts_implementation="kernels-community/evil"),
    "an attention for each part": changed_json("config.json", attn_implementation={"": "evil/kernels"}),
    "a tokenizer that doubles": changed_json(
        "tokenizer.json",
        normalizer={"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 40},
    ),
    "a tokenizer that backtracks": changed_json(
        "tokenizer.json", normalizer={"type": "Replace", "pattern": {"Regex": "(a+)+$c"}, "content": "b"}
    ),
    **{f"a quantiser {name}": changed_json("config.json", quantization_config={"quant_method": name}) for name in ("bitsandbytes", "gptq", "awq", "torchao")},
    "data files by an absolute path": card_that_leads("/etc/passwd"),
    "data files above": card_that_leads("../../rows.csv"),
    "data files of the web": card_that_leads("http://127.0.0.1:1/rows.csv"),
    "data files of a reference": card_that_leads("reference://x::refs.json"),
}  # fmt: skip


def stand_ins(folder: Path, canary: Path) -> Path:
    """A folder for PYTHONPATH: packages that libraries use where they are installed; whatever is asked of them acts."""
    acts = f"""
import pathlib

class Acts(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return act

    def __call__(cls, *_, **__):
        act()

def act(*_, **__):
    pathlib.Path({str(canary)!r}).touch()
    raise RuntimeError("acted")

def __getattr__(name):  # a class of any name: libraries import many of them where the package is installed
    if name.startswith("__"):
        raise AttributeError(name)
    return Acts(name, (), {{}})
"""
    for name in ("kernels", "peft", "aiohttp"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(acts)
        about = folder / f"{name}-99.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n")
    return folder


KINDS = {
    "model": MODELS,
    "data": DATA,
    "recipe": RECIPES,
    "text": TEXTS,
    "trained": TRAINED,
    "address": ADDRESSES,
    "bound": BOUNDS,
}
CASES = {f"{kind}: {name}": case for kind, cases in KINDS.items() for name, case in cases.items()}
