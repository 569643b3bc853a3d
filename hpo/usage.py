"""The commands that use a promoted model: `hpo serve`, `hpo chat`, `hpo predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpo.arguments import DEFAULT_STUDIES, Studies, console, errors, study_names_that_begin
from hpo.errors import UserError

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="A study (its promoted model), a model's folder, or models:/NAME@alias in the registry.",
        autocompletion=study_names_that_begin,
    ),
]
PromotionNumber = Annotated[
    int | None, typer.Option("--promotion", min=1, help="Which promotion of the study; the newest by default.")
]


@app.command()
def serve(
    target: Target,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; others than this machine's need a key.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    key: Annotated[
        str | None,
        typer.Option("--key", envvar="HPO_API_KEY", help="What clients must send; safer in the environment."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What clients call the model.")] = None,
    promotion: PromotionNumber = None,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Serve a promoted model over HTTP, as OpenAI's models are served."""
    from hpo.deployment import find
    from hpo.endpoint.server import serve as answer

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    answer(find(target, studies, promotion), host=host, port=port, key=key, name=name, say=say)


@app.command()
def chat(
    target: Target,
    system: Annotated[str | None, typer.Option("--system", help="What a dialogue begins with.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Longest answer; the model's own setting by default.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0, help="0 always takes the likeliest token.")
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, help="Choose among the likeliest K tokens.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Makes answers repeatable.")] = None,
    promotion: PromotionNumber = None,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Talk with a promoted model in the terminal, or have it go on with a text."""
    from hpo.conversation import Conversation, converse, greeting
    from hpo.deployment import find

    def say(line: str) -> None:
        errors.print(line, markup=False, soft_wrap=True)

    deployment = find(target, studies, promotion)
    described = deployment.describe()
    if not described["writes"]:
        raise UserError(
            f"{deployment.name} is a {described['task']} model, which does not write freely; use `hpo predict`."
        )
    sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "seed": seed}
    conversation = Conversation(deployment.load(), sampling, say, system)
    say(greeting(conversation, deployment.name))
    converse(conversation)


@app.command()
def predict(
    target: Target,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Texts: .txt (one a line), .jsonl, .csv or .parquet.")],
    output: Annotated[
        Path | None, typer.Option("--output", help="A .jsonl or .csv file; JSON lines on standard output by default.")
    ] = None,
    column: Annotated[
        str | None, typer.Option("--column", help="The column to read; that of the training data by default.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Texts at a time.")] = 16,
    beams: Annotated[
        int | None, typer.Option("--beams", min=1, help="Translation: width of the search; as tested by default.")
    ] = None,
    promotion: PromotionNumber = None,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Have a promoted model read a file of texts; with what is right in the file, measure it too."""
    from hpo import predictions
    from hpo.deployment import find

    def say(line: str) -> None:
        errors.print(line, markup=False, soft_wrap=True)

    deployment = find(target, studies, promotion)
    predictions.check_output(output)
    examples = predictions.read(file, deployment.describe()["columns"], column)
    if examples.empty:
        say(f"rows without a text, left out: {examples.empty:,}")
    try:
        served = deployment.load()
        with predictions.output(output) as write:
            metrics = predictions.predict(served, examples, write, batch_size=batch_size, beams=beams, say=say)
    except KeyboardInterrupt:
        say("Stopped at once." if output is None else f"Stopped at once; {output} was not written.")
        raise typer.Exit(130) from None
    for line in predictions.metrics_lines(metrics):
        say(line)
