"""The student's own networks, losses and train loop together: an epoch, and samples.

Fails only where the criteria of the single functions find nothing.
"""

import torch

from course.aae_standins import Z, play
from course.criterion import criterion, expect
from course.whole import blamed, single_functions


@criterion("2.4")
def aae_works_as_a_whole(part):
    """The student's own networks and AdversarialAE together are trained for an epoch and sampled from."""
    others = single_functions("part2")
    with blamed(part, others, "an epoch of train_aae with the student's own model"):
        model = part.models.AdversarialAE(z_dim=Z)
        recon, z = model(torch.rand(5, 1, 28, 28) * 2 - 1)[:2]
        expect(recon.shape == (5, 1, 28, 28) and z.shape == (5, Z), "AdversarialAE gives no images and codes",
               given="5 images", expected=[5, 1, 28, 28], got=recon.shape)  # fmt: skip
        play(part, model=model, lr=1e-3)
    with blamed(part, others, "AdversarialAE.sample with the student's own networks"):
        samples = model.eval().sample(5)
        expect(samples.shape == (5, 1, 28, 28), "AdversarialAE.sample gives no images", given="sample(5)",
               expected=[5, 1, 28, 28], got=samples.shape)  # fmt: skip
