"""What the official openai package gets of an endpoint: python with_openai.py ADDRESS MODEL.

It runs in the environment of envs/clients.txt, and prints JSON.
"""

import asyncio
import json
import sys
from typing import Any

import openai

TURN: Any = {"role": "user", "content": "lungs are clear"}


def main(address: str, name: str) -> None:
    client = openai.OpenAI(base_url=address, api_key="none")
    chat, completions = client.chat.completions, client.completions
    found: dict[str, Any] = {"models": [model.id for model in client.models.list()]}
    found["model"] = client.models.retrieve(name).id
    answer = chat.create(model=name, messages=[TURN])
    found["chat"] = answer.choices[0].message.content
    assert answer.usage is not None
    found["usage"] = answer.usage.model_dump(include={"prompt_tokens", "completion_tokens"})
    with chat.create(
        model=name, messages=[TURN], stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    parts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    found["stream"] = "".join(parts)
    found["stream_usage"] = chunks[-1].usage.model_dump(
        include={"prompt_tokens", "completion_tokens"}
    )
    with chat.stream(model=name, messages=[TURN]) as events:  # the package puts pieces together
        snapshots = [event.snapshot for event in events if event.type == "content.delta"]
    found["put_together"] = snapshots[-1]
    drawn = chat.create(
        model=name,
        messages=[{"role": "developer", "content": "is normal"}, TURN],
        n=3,
        temperature=1.2,
        top_p=0.95,
        seed=7,
        max_completion_tokens=8,
        logprobs=True,
        top_logprobs=2,
        response_format={"type": "text"},
    )
    found["drawn"] = [choice.message.content for choice in drawn.choices]
    told = [choice.logprobs for choice in drawn.choices]
    found["likeliest"] = [len(entry.top_logprobs) for each in told for entry in each.content]
    text = completions.create(model=name, prompt="lungs are clear", max_tokens=5, logprobs=1)
    found["completion"] = text.choices[0].text
    found["offsets"] = text.choices[0].logprobs.text_offset
    both = completions.create(model=name, prompt=[[5, 6, 7], [7, 8]], max_tokens=3, echo=True)
    found["echo"] = [choice.text for choice in both.choices]
    found["refused"] = refused(client, name)
    found["together"] = asyncio.run(together(address, name))
    json.dump(found, sys.stdout)


def refused(client: openai.OpenAI, name: str) -> list[str]:
    """The package's own errors for requests that are refused."""
    kinds = []
    for asked in ({"model": "other"}, {"temperature": 3.0}, {"max_tokens": 10**6}):
        try:
            client.completions.create(**{"model": name, "prompt": "the", **asked})
        except openai.APIStatusError as error:
            kinds.append(type(error).__name__)
    return kinds


async def together(address: str, name: str) -> list[str | None]:
    """Eight chats at once."""
    async with openai.AsyncOpenAI(base_url=address, api_key="none") as client:
        asked = [client.chat.completions.create(model=name, messages=[TURN]) for _ in range(8)]
        return [answer.choices[0].message.content for answer in await asyncio.gather(*asked)]


if __name__ == "__main__":
    main(*sys.argv[1:])
