"""The student's own networks, losses and sampling together: a short training, samples, and a manifold.

Fails only where the criteria of the single functions find nothing.
"""

import tempfile

import torch

from course.criterion import REGISTRY, criterion, expect
from course.part1_training import LR, _fit
from course.standins_part1 import construct
from course.whole import blamed

TRAINING = ("encoder_outputs", "encoder_scales_its_input", "decoder_outputs", "reparameterisation_noise_is_independent",
            "kl_value", "kl_summed_over_latents", "bpd_value", "bpd_batch_does_not_count",
            "reconstruction_summed_and_averaged", "reconstruction_takes_logits", "regularization_averaged_over_batch",
            "bpd_of_both_losses", "latents_follow_the_posterior", "gradients_reach_both_networks",
            "optimizer_has_all_parameters", "optimizer_has_the_learning_rate", "optimizer_is_adam",
            "training_minimises_bpd", "losses_are_logged")  # fmt: skip


@criterion("1.7")
def vae_works_as_a_whole(part):
    """The student's own networks and VAE together are trained, tested and sampled from."""
    with blamed(part, TRAINING, "a training of two batches"), tempfile.TemporaryDirectory() as folder:
        vae = construct(part.train_pl.VAE, lr=LR / 10)
        _fit(vae, folder, test=True)
    with blamed(part, (*TRAINING, "samples_shape"), "VAE.sample with the student's own networks"):
        result = vae.eval().sample(3)
        samples = result[0] if isinstance(result, (tuple, list)) else result
        expect(torch.as_tensor(samples).shape[0] == 3, "VAE.sample does not give as many images as asked for",
               expected=3, got=samples)  # fmt: skip
    manifold = (*TRAINING, *(name for name, one in REGISTRY.items() if one.question == "1.9"))
    with blamed(part, manifold, "visualize_manifold with the student's own decoder"):
        small = construct(part.train_pl.VAE, z_dim=2).eval()
        part.utils.visualize_manifold(small.decoder, grid_size=5)
