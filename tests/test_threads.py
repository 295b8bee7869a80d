"""One model, several threads: each request gets what it gets alone, bit for bit."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from mmspike.deploy import switch_to_deploy
from mmspike.engine.inputs import estimate_norms
from tests.det import helpers as det
from tests.seg import helpers as seg

THREADS, REQUESTS = 8, 24
HOSTS = {"det": (det, {"model.test_cfg.rcnn.score_thr": 0.0}), "seg": (seg, {})}


def answer(model, request) -> list[torch.Tensor]:
    """What a model predicts for a request, as tensors."""
    with torch.no_grad():
        (result,) = model.test_step(request)
    if "pred_sem_seg" in result:
        return [result.pred_sem_seg.data, result.seg_logits.data]
    found = result.pred_instances
    return [found.bboxes, found.scores, found.labels, torch.as_tensor(found.masks)]


def requests_for(host, model):
    sizes = [(32, 48), (48, 32), (48, 48), (32, 64)]
    for size in sizes * (REQUESTS // len(sizes)):
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
        samples = host.make_batch(model, size)["data_samples"]
        yield dict(inputs=[image], data_samples=samples[:1])


@pytest.mark.parametrize(
    ("name", "time_steps", "deploy", "neuron"),
    [
        *itertools.product(HOSTS, (1, 3), (False, True), ("mmspike.LIF",)),
        ("seg", 3, False, "ParametricLIFNode"),
    ],
)
def test_eight_threads_share_a_model(name, time_steps, deploy, neuron):
    host, options = HOSTS[name]
    cfg = host.small_config(time_steps, **options)
    cfg.model.neuron_cfg.type = neuron
    if name == "det":
        cfg.model.test_cfg.rpn.update(nms_pre=50, max_per_img=10)
        cfg.model.test_cfg.rcnn.max_per_img = 5
    model = host.build(cfg).eval()
    requests = list(requests_for(host, model))
    estimate_norms(model, requests[:4])
    if deploy:
        switch_to_deploy(model)
    alone = [answer(model, request) for request in requests]
    assert len({tuple(x[-1].flatten().tolist()) for x in alone}) > REQUESTS / 2  # they vary

    start = Barrier(THREADS)

    def serve(i):
        if i < THREADS:
            start.wait()
        return answer(model, requests[i])

    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(serve, range(REQUESTS)))
    for one, other in zip(together, alone, strict=True):
        assert all(map(torch.equal, one, other))
