"""gRPC as unmodified clients speak it: Triton's client, health checks, reflection; and what it refuses."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.images import red_png
from tests.support.odd_pictures import TAKEN
from tests.support.ports import free_port
from tests.support.server import running_server
from tests.support.versions import SIDE

grpc = pytest.importorskip("grpc", reason="the grpc extra is not installed")
pytest.importorskip("grpc_reflection", reason="the grpc extra is not installed")
triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

METHOD = "/inference.GRPCInferenceService/"


@pytest.fixture(scope="module")
def address(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("the-key scopes=predict,read,admin", "ascii")
    with running_server(repository, tmp_path_factory.mktemp("grpc"), grpc_port=port, api_keys_file=keys):
        yield f"127.0.0.1:{port}"


KEY = {"authorization": "Bearer the-key"}


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with triton.InferenceServerClient(address) as client:
        yield client


def pixels(*reds: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    images = np.full((len(reds), SIDE, SIDE, 3), 100, np.uint8)
    images[:, 0, 0, 0] = reds
    return images


def pixel_input(images: np.ndarray[Any, Any]) -> Any:
    given = triton.InferInput("images", list(images.shape), "UINT8")
    given.set_data_from_numpy(images)
    return given


def reds(result: Any) -> list[int]:
    return [round(float(row[0]) * 255) for row in result.as_numpy("scores")]


def test_messages_are_tritons_on_the_wire() -> None:
    from tritonclient.grpc import model_config_pb2, service_pb2

    from saccade.service.api.grpc.messages import POOL

    nested = {
        "InferInputTensor": service_pb2.ModelInferRequest,
        "InferRequestedOutputTensor": service_pb2.ModelInferRequest,
        "InferOutputTensor": service_pb2.ModelInferResponse,
        "TensorMetadata": service_pb2.ModelMetadataResponse,
        "ModelIndex": service_pb2.RepositoryIndexResponse,
    }
    enum, int32 = 14, 5
    for message in POOL.FindFileByName("open_inference.proto").message_types_by_name.values():
        outer = nested.get(message.name, service_pb2)
        theirs = getattr(outer, message.name, None) or getattr(model_config_pb2, message.name)
        for field in message.fields:
            same = theirs.DESCRIPTOR.fields_by_number[field.number]
            assert same.name == field.name
            assert same.type in ((int32, enum) if field.type == int32 else (field.type,))


def test_everything_a_client_asks_before_it_sends(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("classifier", "1", headers=KEY)
    assert not client.is_model_ready("nobody", headers=KEY)
    assert "binary_tensor_data" in client.get_server_metadata(headers=KEY).extensions
    metadata = client.get_model_metadata("classifier", headers=KEY)
    config = client.get_model_config("classifier", headers=KEY).config
    assert [list(tensor.shape) for tensor in metadata.inputs] == [[-1, SIDE, SIDE, 3]]
    assert (config.max_batch_size, config.input[0].data_type, list(config.input[0].dims)) == (16, 2, [SIDE, SIDE, 3])
    index = client.get_model_repository_index(headers=KEY).models
    assert {item.name for item in index} == {"classifier", "detector", "instances", "segmenter"}
    client.load_model("classifier", headers=KEY)
    with pytest.raises(triton.InferenceServerException, match="not allowed"):
        client.unload_model("classifier", headers=KEY)


def test_batch_of_pixels_with_all_that_a_request_may_say(client: Any) -> None:
    outputs = [triton.InferRequestedOutput("scores"), triton.InferRequestedOutput("class_ids")]

    result = client.infer(
        "classifier",
        [pixel_input(pixels(10, 20, 30))],
        model_version="1",
        outputs=outputs,
        request_id="7",
        priority=1,
        timeout=5_000_000,
        headers=KEY,
    )

    assert reds(result) == [10, 20, 30]
    assert result.as_numpy("class_ids").shape == (3, 10)
    assert (result.get_response().id, result.get_response().model_version) == ("7", "1")


def test_encoded_pictures_and_classification(client: Any) -> None:
    given = triton.InferInput("images", [2], "BYTES")
    given.set_data_from_numpy(np.array([red_png(51), red_png(102)], dtype=np.object_))
    wanted = triton.InferRequestedOutput("scores", class_count=1)

    result = client.infer("classifier", [given], outputs=[wanted], headers=KEY)

    assert result.as_numpy("scores").tolist() == [[b"0.200000:0:0"], [b"0.400000:0:0"]]


def test_lost_pixels_are_said_in_the_parameters(client: Any) -> None:
    given = triton.InferInput("images", [1], "BYTES")
    given.set_data_from_numpy(np.array([TAKEN["missing restart marker"][0]], dtype=np.object_))

    response = client.infer("classifier", [given], headers=KEY).get_response()

    assert "parts of the picture may be lost" in response.parameters["warning"].string_param


def test_typed_contents_are_the_same_request(client: Any) -> None:
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name="classifier")
    tensor = request.inputs.add(name="images", datatype="UINT8", shape=[1, SIDE, SIDE, 3])
    tensor.contents.uint_contents.extend(pixels(9).reshape(-1).tolist())

    response = client._client_stub.ModelInfer(request, metadata=list(KEY.items()))

    assert round(float(np.frombuffer(response.raw_output_contents[0], np.float32)[0]) * 255) == 9


def test_requests_side_by_side_and_their_statistics(client: Any) -> None:
    ends: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for red in range(20):
        client.async_infer(
            "classifier",
            [pixel_input(pixels(red))],
            callback=lambda result, error: ends.put((result, error)),
            headers=KEY,
        )

    answers = [ends.get(timeout=20) for _ in range(20)]

    assert [error for _, error in answers] == [None] * 20
    assert sorted(reds(result)[0] for result, _ in answers) == list(range(20))
    found = client.get_inference_statistics("classifier", "2", headers=KEY).model_stats[0]
    assert found.inference_stats.success.count >= 20


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"model_name": "nobody"}, "NOT_FOUND", "no model 'nobody'"),
        ({"model_version": "9"}, "NOT_FOUND", "no version '9'"),
        ({"timeout": 1}, "UNAVAILABLE", "deadline"),
        ({"headers": {}}, "UNAUTHENTICATED", "asks for a key"),
        ({"headers": {"authorization": "Bearer wrong"}}, "PERMISSION_DENIED", "not known"),
        ({"outputs": [triton.InferRequestedOutput("x")]}, "INVALID_ARGUMENT", "unexpected inference output"),
    ],
)
def test_refusals_have_the_protocols_codes(client: Any, change: dict[str, Any], code: str, words: str) -> None:
    arguments = {"model_name": "classifier", "headers": KEY, **change}

    with pytest.raises(triton.InferenceServerException, match=words) as refused:
        client.infer(inputs=[pixel_input(pixels(1))], **arguments)

    assert refused.value.status() == f"StatusCode.{code}"
    assert reds(client.infer("classifier", [pixel_input(pixels(1))], headers=KEY)) == [1]


def test_deadline_of_the_call_is_the_requests(client: Any) -> None:
    result = client.infer("classifier", [pixel_input(pixels(4))], headers=KEY, client_timeout=20.0)

    assert reds(result) == [4]


async def test_asynchronous_client(address: str) -> None:
    from tritonclient.grpc import aio

    async with aio.InferenceServerClient(address) as client:
        given = aio.InferInput("images", [2, SIDE, SIDE, 3], "UINT8")
        given.set_data_from_numpy(pixels(8, 9))
        assert reds(await client.infer("classifier", [given], headers=KEY)) == [8, 9]


def test_health_and_reflection(address: str) -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"") == b"\x08\x01"  # status: SERVING
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        (answer,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked)
    names = {service.name for service in answer.list_services_response.service}
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names


def test_server_stops_with_a_client_connected(repository: Path, tmp_path: Path) -> None:
    port = free_port()
    with (
        running_server(repository, tmp_path, grpc_port=port) as server,
        triton.InferenceServerClient(f"127.0.0.1:{port}") as client,
    ):
        ends: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: ends.put((result, error)))
        client.async_stream_infer("classifier", [pixel_input(pixels(5))])
        assert reds(ends.get(timeout=20)[0]) == [5]
        server.terminate()
        assert server.wait(15) == 0


def test_stream_of_a_client_that_keeps_sending_ends_with_the_server(repository: Path, tmp_path: Path) -> None:
    port, ends = free_port(), threading.Event()

    def endless() -> Iterator[bytes]:
        while not ends.is_set():
            yield request().SerializeToString()

    with (
        running_server(repository, tmp_path, grpc_port=port) as server,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        answers = channel.stream_stream(METHOD + "ModelStreamInfer")(endless(), metadata=METADATA)
        assert next(answers)
        server.terminate()
        with pytest.raises(grpc.RpcError, match="shutting down") as ended:
            list(answers)
        ends.set()
        assert server.wait() == 0
        assert not server.events("killed_after_timeout")
    assert ended.value.code().name == "UNAVAILABLE"


def test_stream_answers_in_order_and_goes_on_after_a_refusal(client: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=KEY)
    for red in range(20):
        model = "nobody" if red == 7 else "classifier"
        client.async_stream_infer(model, [pixel_input(pixels(red))], request_id=str(red))
    found = [answers.get(timeout=20) for _ in range(20)]
    client.stop_stream()

    assert "no model 'nobody'" in str(found.pop(7)[1])
    assert [error for _, error in found] == [None] * 19
    assert [reds(result)[0] for result, _ in found] == [red for red in range(20) if red != 7]
    assert [result.get_response().id for result, _ in found] == [str(red) for red in range(20) if red != 7]


def test_client_of_a_stream_may_ask_which_response_is_a_requests_last(client: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=KEY)
    for asks in (True, False):
        given = [pixel_input(pixels(5))]
        client.async_stream_infer("classifier", given, enable_empty_final_response=asks)
    (asked, failed), (plain, _) = [answers.get(timeout=20) for _ in range(2)]
    client.stop_stream()

    assert failed is None
    assert reds(asked) == [5]
    assert asked.get_response().parameters["triton_final_response"].bool_param
    assert not plain.get_response().parameters


def test_client_of_a_stream_may_wait_for_each_answer(client: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=KEY)
    for red in (1, 2):
        client.async_stream_infer("classifier", [pixel_input(pixels(red))])
        assert reds(answers.get(timeout=20)[0]) == [red]
    client.stop_stream()


@pytest.fixture
def stub(address: str) -> Iterator[Any]:
    from tritonclient.grpc import service_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(**change: Any) -> Any:
    from tritonclient.grpc import service_pb2

    given = {"name": "images", "datatype": "UINT8", "shape": [1, SIDE, SIDE, 3]}
    contents = [pixels(5).tobytes()]
    return service_pb2.ModelInferRequest(
        **{"model_name": "classifier", "inputs": [given], "raw_input_contents": contents, **change}
    )


METADATA = tuple(KEY.items())


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": {"binary_data_output": {"bool_param": False}}},
        {"outputs": [{"name": "scores", "parameters": {"binary_data": {"bool_param": False}}}]},
    ],
)
def test_answers_are_raw_whatever_a_parameter_of_http_says(stub: Any, change: dict[str, Any]) -> None:
    answer = stub.ModelInfer(request(**change), metadata=METADATA, timeout=20)

    assert round(float(np.frombuffer(answer.raw_output_contents[0], np.float32)[0]) * 255) == 5


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"model_name": ""}, "NOT_FOUND", "unknown model"),
        ({"model_name": "classifier/versions/1"}, "NOT_FOUND", "unknown model"),
        ({"model_version": "1/../2"}, "NOT_FOUND", "unknown model"),
        (
            {"parameters": {"triton_enable_empty_final_response": {"string_param": "yes"}}},
            "INVALID_ARGUMENT",
            "must be true or false",
        ),
        ({"raw_input_contents": [b"", b""]}, "INVALID_ARGUMENT", "2 raw_input_contents for 1 inputs"),
        (
            {"inputs": [{"name": "images", "datatype": "UINT8", "contents": {"uint_contents": [1]}}]},
            "INVALID_ARGUMENT",
            "must not be specified when using raw_input_contents",
        ),
    ],
)
def test_requests_that_no_client_library_makes(stub: Any, change: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(grpc.RpcError, match=words) as refused:
        stub.ModelInfer(request(**change), metadata=METADATA, timeout=20)

    assert refused.value.code().name == code


@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata"])
def test_what_is_no_message_is_refused(address: str, method: str) -> None:
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(METHOD + method)
        with pytest.raises(grpc.RpcError, match=f"no {method}Request") as refused:
            call(b"\xff" * 50, metadata=METADATA, timeout=20)
        (streamed,) = channel.stream_stream(METHOD + "ModelStreamInfer")(iter([b"\xff"]), metadata=METADATA)
    assert refused.value.code().name == "INVALID_ARGUMENT"
    assert b"no ModelInferRequest" in streamed
