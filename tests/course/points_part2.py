"""Points of part 2's coding questions. Figures and text are marked by hand.

Each criterion's file says at its top which alternatives are accepted.
"""

POINTS_PART2 = {
    "2.4": {
        "encoder_codes": 0.25,
        "decoder_images": 0.25,
        "decoder_stays_in_range": 0.25,
        "model_reconstructs": 0.25,
        "reconstruction_is_squared": 0.25,
        "reconstruction_is_a_mean": 0.25,
        "autoencoder_learns": 0.25,
        "autoencoder_gradients_are_cleared": 0.25,
        "autoencoder_optimizer": 0.25,
        "aae_works_as_a_whole": 0.25,
        "by hand": 0.5,  # reconstructions after 0, 20, 50, 100 epochs
    },
    "2.5": {
        "discriminator_logits": 0.25,
        "generator_asks_the_discriminator": 0.25,
        "generator_wants_real": 0.5,
        "generator_is_cross_entropy": 0.25,
        "generator_reaches_the_encoder": 0.25,
        "lambda_weighs_both": 0.5,
        "autoencoder_log": 0.1,
        "discriminator_has_both_terms": 0.25,
        "discriminator_roles": 0.5,
        "discriminator_is_cross_entropy": 0.25,
        "discriminator_loss_reaches_its_weights": 0.25,
        "discriminator_log": 0.1,
        "accuracy_threshold": 0.1,
        "accuracy_counts_both": 0.1,
        "prior_is_normal": 0.25,
        "prior_has_the_shape_of_the_codes": 0.1,
        "prior_on_the_device_of_the_codes": 0.1,
        "sample_decodes_the_prior": 0.25,
        "samples_on_the_device_of_the_model": 0.1,
        "discriminator_learns": 0.1,
        "discriminator_gradients_are_cleared": 0.1,
        "discriminator_leaves_the_encoder_alone": 0.25,
        "generator_leaves_the_discriminator_alone": 0.1,
        "lambda_is_handed_on": 0.1,
        "discriminator_optimizer": 0.25,
        "aae_without_distributions": 0.15,
        "by hand": 0.5,  # reconstructions and samples after 0, 20, 50, 100 epochs
    },
    "2.6": {
        "networks_take_two_dimensions": 0.5,
        "by hand": 3.5,  # pictures of both models, and why they look similar
    },
}
