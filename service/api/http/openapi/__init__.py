"""The OpenAPI document. Promises: every route but the pages, with what it takes, answers and refuses.

FastAPI describes its own routes; predict and infer are plain ASGI endpoints, which `predict.py` and `infer.py`
describe. `document.py` joins both and adds what holds everywhere: problems, keys, HEAD.
"""
