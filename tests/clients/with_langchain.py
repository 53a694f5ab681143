"""What LangChain gets of an endpoint: python with_langchain.py ADDRESS MODEL.

It runs in the environment of envs/clients.txt, and prints JSON.
"""

import asyncio
import json
import sys
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI


def main(address: str, name: str) -> None:
    where: Any = {"base_url": address, "api_key": "none", "model": name}
    chat = ChatOpenAI(**where)
    answer = chat.invoke("lungs are clear")
    found: dict[str, Any] = {"chat": answer.content, "usage": answer.usage_metadata}
    pieces = list(chat.stream("lungs are clear"))
    found["stream"] = "".join(str(piece.content) for piece in pieces)
    found["pieces"] = len(pieces)
    found["batch"] = [each.content for each in chat.batch(["lungs are clear"] * 4)]
    found["later"] = asyncio.run(chat.ainvoke("lungs are clear")).content
    turns = [HumanMessage("the heart ?"), AIMessage("normal ."), HumanMessage("lungs are clear")]
    found["turns"] = chat.invoke(turns).content
    found["system"] = chat.invoke([SystemMessage("is normal"), HumanMessage("the lungs")]).content
    template = ChatPromptTemplate.from_messages([("user", "{text} are clear")])
    found["chain"] = (template | chat | StrOutputParser()).invoke({"text": "lungs"})
    hot = ChatOpenAI(**where, temperature=1.2, top_p=0.9, seed=3, max_tokens=6, n=2)
    drawn = [hot.generate([[HumanMessage("lungs are clear")]]) for _ in range(2)]
    found["drawn"] = [[each.text for each in result.generations[0]] for result in drawn]
    told = chat.bind(logprobs=True, top_logprobs=2).invoke("lungs are clear")
    found["logprobs"] = len(told.response_metadata["logprobs"]["content"])
    # Its class for completions sends a temperature, penalties and a number of tokens of its own.
    complete = OpenAI(**where, temperature=0, max_tokens=5)
    found["completion"] = complete.invoke("lungs are clear")
    found["completions"] = complete.batch(["lungs are clear"] * 3)
    found["completion_stream"] = "".join(complete.stream("lungs are clear"))
    found["as_it_comes"] = OpenAI(**where, seed=1, max_tokens=5).invoke("lungs are clear")
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
