"""Points of every question, and of the coding questions how they are divided among the criteria.

Each part's table is in `points_part1.py` and so on: `POINTS_PART1 = {"1.7": {"kl_value": 1.5, ..., BY_HAND: 2}}`. What
no test can see in a coding question (figures, text) is "by hand". A criterion without points is for remarks.
"""

import importlib

BY_HAND = "by hand"

# The assignment's points of every question. Those without criteria are written ones, marked by hand.
QUESTIONS: dict[str, float] = {
    "1.1": 2, "1.2": 3, "1.3": 2, "1.4": 3, "1.5": 2, "1.6": 3, "1.7": 12, "1.8": 3, "1.9": 4,
    "2.1": 3, "2.2": 2, "2.3": 2, "2.4": 3, "2.5": 6, "2.6": 4, "2.7": 2,
    "3.1": 3, "3.2": 4, "3.3": 3,
}  # fmt: skip


def load_points() -> dict[str, dict[str, float]]:
    """The tables of the three parts as one: weights of the criteria by question."""
    points: dict[str, dict[str, float]] = {}
    for number in (1, 2, 3):
        name = f"course.points_part{number}"
        try:
            points.update(getattr(importlib.import_module(name), f"POINTS_PART{number}"))
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    return points


POINTS = load_points()

# Criteria that a function passes which is not there, breaks off or does nothing: they count only where the others
# found something to judge.
FORWARD, PRIOR, STEPS = "reconstruction_summed_and_averaged", "discriminator_has_both_terms", "autoencoder_learns"
SOFTMAX, TOKENS = "attention_is_a_softmax_of_scores", "generate_returns_the_prompt"
NEEDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("a_batch_of_one", "optimizer_has_all_parameters", "optimizer_has_the_learning_rate",
                     "optimizer_is_adam", "training_minimises_bpd", "losses_are_logged", "reconstruction_takes_logits",
                     "latents_follow_the_posterior", "gradients_reach_both_networks", "device_of_the_losses",
                     "vae_works_as_a_whole"), (FORWARD,)),
    **dict.fromkeys(("reparameterisation_noise_is_normal", "reparameterisation_of_any_shape", "device_of_the_noise",
                     "no_torch_distributions"), ("reparameterisation_noise_is_independent",)),
    "kl_of_any_shape": ("kl_value",),
    **dict.fromkeys(("encoder_outputs_differ", "encoder_scales_its_input"), ("encoder_outputs",)),
    "decoder_logits_are_not_squashed": ("decoder_outputs",),
    **dict.fromkeys(("device_of_the_networks", "networks_with_two_latents"), ("encoder_outputs", "decoder_outputs")),
    **dict.fromkeys(("samples_have_latents_of_the_prior", "samples_are_drawn", "samples_keep_pixels_in_place",
                     "samples_follow_the_probabilities", "saved_samples_have_the_right_brightness",
                     "device_of_samples"), ("samples_shape",)),
    **dict.fromkeys(("manifold_axes", "manifold_shows_the_mean", "manifold_keeps_the_contrast", "manifold_brightness",
                     "manifold_grid_size"), ("manifold_percentiles",)),
    **dict.fromkeys(("generator_wants_real", "generator_is_cross_entropy", "generator_reaches_the_encoder"),
                    ("generator_asks_the_discriminator",)),
    **dict.fromkeys(("discriminator_roles", "discriminator_is_cross_entropy", "discriminator_loss_reaches_its_weights",
                     "accuracy_counts_both", "prior_is_normal", "prior_has_the_shape_of_the_codes",
                     "aae_without_distributions"), (PRIOR,)),
    "prior_on_the_device_of_the_codes": ("generator_asks_the_discriminator", PRIOR),
    "samples_on_the_device_of_the_model": ("sample_decodes_the_prior",),
    **dict.fromkeys(("discriminator_gradients_are_cleared", "generator_leaves_the_discriminator_alone"),
                    ("discriminator_learns",)),
    **dict.fromkeys(("autoencoder_gradients_are_cleared", "discriminator_leaves_the_encoder_alone",
                     "lambda_is_handed_on"), (STEPS,)),
    **dict.fromkeys(("networks_take_two_dimensions", "aae_works_as_a_whole"),
                    ("encoder_codes", "decoder_images", "discriminator_logits")),
    **{name: (SOFTMAX,) for name in POINTS.get("3.2", {}) if name not in (BY_HAND, SOFTMAX)},
    **{name: (TOKENS,) for name in POINTS.get("3.3", {}) if name not in (BY_HAND, TOKENS)},
}  # fmt: skip
