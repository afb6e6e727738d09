"""Asks a server about one image after the other. Promises: an image that fails never ends a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.client import AnyPrediction, Client, NoAnswer, Problem, UnexpectedAnswer
from saccade.service.cli.image_files import STANDARD_INPUT, bytes_of

_KEY_STATUSES = (401, 403)


@dataclass(frozen=True, slots=True)
class Asked:
    """An image and its prediction, or the problem in its place."""

    image: str
    prediction: AnyPrediction | None
    problem: Mapping[str, Any]  # title, detail, and what else the server said; empty where there is a prediction


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about every image: arguments of Client.predict."""

    model: str
    version: str | None
    label: str | None
    deadline_ms: float | None
    parameters: Mapping[str, str]


@dataclass(slots=True)
class Asking:
    """`asked` grows; `end` says why no more images were sent, `notes` what else went wrong."""

    client: Client
    question: Question
    draw: Path | None  # folder for images with their answers
    asked: list[Asked] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    end: str = ""
    _drawn: set[str] = field(default_factory=set)

    @property
    def has_failed(self) -> bool:
        return bool(self.notes or self.end) or any(item.prediction is None for item in self.asked)

    def about(self, images: Iterable[Path]) -> None:
        """Asks about all of them, or as many as there is a server for."""
        for image in images:
            try:
                content = bytes_of(image)
                prediction = self._predict(content)
            except OSError as error:
                detail = error.strerror or type(error).__name__
                self._fail(image, {"title": "Cannot be read", "detail": detail})
            except Problem as error:
                self._fail(image, error.document)
            except NoAnswer as error:
                if not error.was_sent:
                    self.end = f"{error}; is `saccade serve` running?"
                    return
                self._fail(image, {"title": "No answer", "detail": str(error)})
            except UnexpectedAnswer as error:
                self.end = str(error)
                return
            else:
                self.asked.append(Asked(str(image), prediction, {}))
                if self.draw is not None:
                    self._draw(image, content, prediction, self.draw)

    def _predict(self, content: bytes) -> AnyPrediction:
        question = self.question
        return self.client.predict(
            content,
            model=question.model,
            version=question.version,
            label=question.label,
            deadline_ms=question.deadline_ms,
            **question.parameters,
        )

    def _fail(self, image: Path, problem: Mapping[str, Any]) -> None:
        self.asked.append(Asked(str(image), None, problem))

    def _draw(self, image: Path, content: bytes, prediction: AnyPrediction, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            prediction.draw(content).save(folder / self._drawn_name(image))
        except (OSError, ValueError) as error:
            self.notes.append(f"{image} is not drawn: {error}")

    def _drawn_name(self, image: Path) -> str:
        """Images of one name in several folders get numbers."""
        stem = "stdin" if image == STANDARD_INPUT else image.stem
        name, number = f"{stem}.png", 1
        while name in self._drawn:
            number += 1
            name = f"{stem}-{number}.png"
        self._drawn.add(name)
        return name


def problem_text(problem: Mapping[str, Any]) -> str:
    """In one line, for people."""
    status = f"{problem['status']} " if "status" in problem else ""
    how = "; here by --key-file FILE or SACCADE_CLIENT_KEY" if problem.get("status") in _KEY_STATUSES else ""
    return f"{status}{problem['title']}: {problem['detail']}{how}"
