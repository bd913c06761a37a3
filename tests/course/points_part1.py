"""Points of part 1, divided among the criteria. What each of them accepts stands at the top of its file."""

BY_HAND = "by hand"

POINTS_PART1 = {
    "1.7": {
        "bpd_value": 0.5,
        "bpd_batch_does_not_count": 0.25,
        "bpd_all_dimensions_count": 0.25,
        "kl_value": 0.75,
        "kl_summed_over_latents": 0.375,
        "kl_of_any_shape": 0.125,
        "reparameterisation_scale": 0.375,
        "reparameterisation_of_any_shape": 0.125,
        "reparameterisation_noise_is_normal": 0.25,
        "reparameterisation_noise_is_independent": 0.25,
        "reparameterisation_gradients": 0.25,
        "reparameterisation_refuses_negative_std": 0,  # a remark
        "encoder_outputs": 0.5,
        "encoder_outputs_differ": 0.25,
        "encoder_scales_its_input": 0.25,
        "decoder_outputs": 0.5,
        "decoder_logits_are_not_squashed": 0.5,
        "reconstruction_summed_and_averaged": 0.5,
        "vae_works_as_a_whole": 0.25,
        "reconstruction_of_the_right_targets": 0.5,
        "reconstruction_takes_logits": 0.5,
        "regularization_averaged_over_batch": 0.5,
        "bpd_of_both_losses": 0.5,
        "latents_follow_the_posterior": 0.5,
        "gradients_reach_both_networks": 0.25,
        "a_batch_of_one": 0.125,
        "optimizer_has_all_parameters": 0.125,  # this and what follows is mostly handed out
        "optimizer_has_the_learning_rate": 0.0625,
        "optimizer_is_adam": 0.0625,
        "training_minimises_bpd": 0.125,
        "losses_are_logged": 0.0625,
        "device_of_the_noise": 0.125,
        "device_of_the_losses": 0.0625,
        "device_of_the_networks": 0.0625,
        "no_torch_distributions": 0.1875,
        BY_HAND: 2,  # the plot of bpd for training and validation, and the test score
    },
    "1.8": {
        "samples_shape": 0.25,
        "samples_have_latents_of_the_prior": 0.375,
        "samples_are_drawn": 0.5,
        "samples_keep_pixels_in_place": 0.375,
        "samples_follow_the_probabilities": 0.25,
        "saved_samples_have_the_right_brightness": 0.125,
        "device_of_samples": 0.125,
        BY_HAND: 1,  # the three plots, and their description
    },
    "1.9": {
        "networks_with_two_latents": 0.25,
        "manifold_percentiles": 0.75,
        "manifold_axes": 0.5,
        "manifold_shows_the_mean": 0.75,
        "manifold_keeps_the_contrast": 0.25,
        "manifold_brightness": 0.25,
        "manifold_grid_size": 0.25,
        "device_of_the_manifold": 0,  # a remark
        BY_HAND: 1,  # the plot, and the patterns in it
    },
}
