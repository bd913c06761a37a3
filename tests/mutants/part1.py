"""Mistakes of part 1: each a small change of a right solution, and the criterion that must find it, alone."""

from mutant import Mutant
from part1_ours import OURS

UTILS, NETWORKS, VAE = "utils.py", "cnn_encoder_decoder.py", "train_pl.py"


def mutant(name: str, criterion: str, file: str, *changes: tuple[str, str]) -> Mutant:
    """One mistake in one file of the template-shaped solution, and in this repository's."""
    return Mutant(name, criterion, {"template": [(file, old, new) for old, new in changes], "ours": OURS[name]})


def in_template(name: str, criterion: str, file: str, *changes: tuple[str, str]) -> Mutant:
    """One mistake in the template-shaped solution alone."""
    return Mutant(name, criterion, {"template": [(file, old, new) for old, new in changes]})


KL = "0.5 * (torch.exp(2 * log_std) + mean ** 2 - 1 - 2 * log_std).sum(dim=-1)"
BPD = "bpd = elbo * np.log2(np.e) / num_dims"
SAMPLE = "z = mean + std * eps"
NOISE = "eps = torch.randn_like(std)"
LOSS = "L_rec = F.cross_entropy(logits, imgs.squeeze(1), reduction='none').sum(dim=(1, 2)).mean()"
REGULARIZATION = "L_reg = KLD(mean, log_std).mean()"
TOTAL = "bpd = elbo_to_bpd(L_rec + L_reg, imgs.shape)"
LATENTS = "z = sample_reparameterize(mean, torch.exp(log_std))"
PRIOR = "z = torch.randn(batch_size, self.hparams.z_dim, device=self.device)"
PIXELS = "pixels = probs.permute(0, 2, 3, 1).reshape(-1, 16)"
DRAWN = "x_samples = torch.multinomial(pixels, num_samples=1)"
PERCENTILES = "percentiles = (torch.arange(grid_size) + 0.5) / grid_size"
VALUES = "values = torch.from_numpy(norm.ppf(percentiles.numpy())).float()"
MESH = "z1, z2 = torch.meshgrid(values, values, indexing='ij')"
MEAN = "imgs = (probs * grey).sum(dim=1, keepdim=True) / 15"
GRID = "img_grid = make_grid(imgs, nrow=grid_size)"
LAST_LAYER = "output_padding=1, padding=1, stride=2),\n        )\n"
OPTIMIZER = "torch.optim.Adam(self.parameters(), lr=self.hparams.lr)"


MUTANTS = [
    # --- bits per dimension
    mutant("bpd_with_batch", "bpd_batch_does_not_count", UTILS, ("np.prod(img_shape[1:])", "np.prod(img_shape)")),
    mutant("bpd_in_nats", "bpd_value", UTILS, (BPD, "bpd = elbo / num_dims")),
    mutant("bpd_log2e_twice", "bpd_value", UTILS, (BPD, "bpd = elbo * np.log2(np.e) ** 2 / num_dims")),
    mutant("bpd_divided_by_log2e", "bpd_value", UTILS, (BPD, "bpd = elbo / np.log2(np.e) / num_dims")),
    mutant("bpd_negative", "bpd_value", UTILS, (BPD, "bpd = -elbo * np.log2(np.e) / num_dims")),
    mutant("bpd_without_channels", "bpd_all_dimensions_count", UTILS, ("img_shape[1:]", "img_shape[2:]")),
    mutant("bpd_for_mnist_only", "bpd_all_dimensions_count", UTILS, ("np.prod(img_shape[1:])", "28 * 28")),
    # --- KL divergence
    mutant("kl_unsummed", "kl_summed_over_latents", UTILS, (KL, KL.replace(".sum(dim=-1)", ""))),
    mutant("kl_averaged", "kl_summed_over_latents", UTILS, (KL, KL.replace(".sum", ".mean"))),
    mutant("kl_over_batch", "kl_summed_over_latents", UTILS, (KL, KL.replace("dim=-1", "dim=0"))),
    mutant("kl_of_everything", "kl_summed_over_latents", UTILS, (KL, KL.replace("dim=-1", ""))),
    mutant("kl_sigma_for_variance", "kl_value", UTILS, (KL, KL.replace("exp(2 * log_std)", "exp(log_std)"))),
    mutant("kl_without_half", "kl_value", UTILS, (KL, KL.replace("0.5 * ", ""))),
    mutant("kl_wrong_sign", "kl_value", UTILS, (KL, KL.replace("0.5", "-0.5"))),
    mutant("kl_of_log_variance", "kl_value", UTILS, (KL, KL.replace("2 * log_std", "log_std"))),
    mutant("kl_log_without_factor", "kl_value", UTILS, (KL, KL.replace("- 2 * log_std", "- log_std"))),
    mutant("kl_mean_not_squared", "kl_value", UTILS, (KL, KL.replace("mean ** 2", "mean"))),
    # --- reparameterisation
    mutant("sample_std_as_variance", "reparameterisation_scale", UTILS, (SAMPLE, "z = mean + torch.sqrt(std) * eps")),
    mutant("sample_std_squared", "reparameterisation_scale", UTILS, (SAMPLE, "z = mean + std ** 2 * eps")),
    mutant("sample_exp_of_std", "reparameterisation_scale", UTILS, (SAMPLE, "z = mean + torch.exp(std) * eps")),
    mutant("sample_uniform_noise", "reparameterisation_noise_is_normal", UTILS, (NOISE, "eps = torch.rand_like(std)")),
    mutant("sample_one_noise_for_all", "reparameterisation_noise_is_independent", UTILS,
           (NOISE, "eps = torch.randn(1, device=std.device)")),
    mutant("sample_noise_shared_by_batch", "reparameterisation_noise_is_independent", UTILS,
           (NOISE, "eps = torch.randn(std.shape[1:], device=std.device)")),
    mutant("sample_noise_shared_by_latents", "reparameterisation_noise_is_independent", UTILS,
           (NOISE, "eps = torch.randn(std.shape[0], 1, device=std.device)")),
    mutant("sample_without_gradient", "reparameterisation_gradients", UTILS,
           (SAMPLE, "z = torch.normal(mean.detach(), std.detach())")),
    mutant("sample_noise_on_cpu", "device_of_the_noise", UTILS, (NOISE, "eps = torch.randn(std.shape)")),
    mutant("sample_by_distributions", "no_torch_distributions", UTILS,
           ("import numpy as np\n", "import numpy as np\nfrom torch.distributions import Normal\n"),
           (SAMPLE, "z = Normal(mean, std).rsample()")),
    mutant("negative_std_accepted", "reparameterisation_refuses_negative_std", UTILS,
           ("assert not (std < 0).any().item(),", "assert True,")),
    # --- networks
    mutant("encoder_unscaled", "encoder_scales_its_input", NETWORKS,
           ("x = x.float() / 15 * 2.0 - 1.0", "x = x.float()")),
    mutant("encoder_divided_by_255", "encoder_scales_its_input", NETWORKS,
           ("x = x.float() / 15 * 2.0 - 1.0", "x = x.float() / 255")),
    mutant("encoder_mean_twice", "encoder_outputs_differ", NETWORKS,
           ("log_std = self.log_std_layer(x)", "log_std = self.mean_layer(x)")),
    mutant("encoder_twice_as_wide", "encoder_outputs", NETWORKS,
           ("        return mean, log_std\n",
            "        return mean, torch.cat([log_std] * (1 + (mean.shape[1] > 2)), dim=1)\n")),
    mutant("decoder_tanh", "decoder_logits_are_not_squashed", NETWORKS,
           (LAST_LAYER, LAST_LAYER.replace("        )\n", "            nn.Tanh(),\n        )\n"))),
    mutant("decoder_sigmoid", "decoder_logits_are_not_squashed", NETWORKS,
           ("        return x\n", "        return torch.sigmoid(x)\n")),
    mutant("decoder_softmax", "decoder_logits_are_not_squashed", NETWORKS,
           ("        return x\n", "        return torch.softmax(x, dim=1)\n")),
    mutant("decoder_relu", "decoder_logits_are_not_squashed", NETWORKS,
           ("        return x\n", "        return torch.relu(x)\n")),
    mutant("decoder_32_pixels", "decoder_outputs", NETWORKS,
           ("kernel_size=3, output_padding=0", "kernel_size=3, output_padding=1"),
           ("        return x\n", "        return x if z.shape[1] > 2 else x[..., :28, :28]\n")),
    mutant("decoder_tensor_on_cpu", "device_of_the_networks", NETWORKS,
           ("x = self.linear(z)\n", "x = self.linear(z) + torch.zeros(z.shape[0], 1)\n")),
    mutant("networks_for_20_latents", "networks_with_two_latents", NETWORKS,
           ("nn.Linear(z_dim, 2 * 16 * c_hid)", "nn.Linear(20, 2 * 16 * c_hid)")),
    # --- losses
    mutant("reconstruction_averaged_over_pixels", "reconstruction_summed_and_averaged", VAE,
           (LOSS, "L_rec = F.cross_entropy(logits, imgs.squeeze(1))")),
    mutant("reconstruction_summed_over_batch", "reconstruction_summed_and_averaged", VAE,
           (LOSS, "L_rec = F.cross_entropy(logits, imgs.squeeze(1), reduction='sum')")),
    mutant("reconstruction_over_batch_twice", "reconstruction_summed_and_averaged", VAE,
           (LOSS, LOSS + " / imgs.shape[0]")),
    mutant("reconstruction_in_bits", "reconstruction_summed_and_averaged", VAE, (LOSS, LOSS + " / np.log(2)")),
    mutant("reconstruction_shifted_targets", "reconstruction_of_the_right_targets", VAE,
           (LOSS, LOSS.replace("imgs.squeeze(1)", "(imgs.squeeze(1) - 1).clamp(min=0)"))),
    mutant("reconstruction_transposed", "reconstruction_of_the_right_targets", VAE,
           (LOSS, LOSS.replace("imgs.squeeze(1)", "imgs.squeeze(1).transpose(1, 2)"))),
    mutant("reconstruction_softmax_first", "reconstruction_takes_logits", VAE,
           (LOSS, LOSS.replace("logits,", "F.softmax(logits, dim=1),"))),
    mutant("regularization_summed_over_batch", "regularization_averaged_over_batch", VAE,
           (REGULARIZATION, REGULARIZATION.replace("mean()", "sum()"))),
    mutant("regularization_over_batch_twice", "regularization_averaged_over_batch", VAE,
           (REGULARIZATION, REGULARIZATION + " / imgs.shape[0]")),
    mutant("bpd_without_regularization", "bpd_of_both_losses", VAE, (TOTAL, "bpd = elbo_to_bpd(L_rec, imgs.shape)")),
    mutant("bpd_of_the_difference", "bpd_of_both_losses", VAE, (TOTAL, "bpd = elbo_to_bpd(L_rec - L_reg, imgs.shape)")),
    mutant("log_std_as_std", "latents_follow_the_posterior", VAE,
           (LATENTS, "z = mean + log_std * torch.randn_like(mean)")),
    mutant("log_std_handed_to_the_sample", "latents_follow_the_posterior", VAE,
           (LATENTS, "z = sample_reparameterize(mean, log_std.abs())")),
    mutant("variance_handed_to_the_sample", "latents_follow_the_posterior", VAE,
           (LATENTS, "z = sample_reparameterize(mean, torch.exp(2 * log_std))")),
    mutant("sample_of_half_log_std", "latents_follow_the_posterior", VAE,
           (LATENTS, "z = sample_reparameterize(mean, torch.exp(0.5 * log_std))")),
    mutant("mean_is_decoded", "latents_follow_the_posterior", VAE, (LATENTS, "z = mean")),
    mutant("sample_detached", "gradients_reach_both_networks", VAE, (LATENTS, LATENTS + ".detach()")),
    mutant("images_squeezed", "a_batch_of_one", VAE, (LOSS, LOSS.replace("squeeze(1)", "squeeze()"))),
    mutant("latents_beside_the_model", "device_of_the_losses", VAE,
           (LATENTS, "z = mean + torch.exp(log_std) * torch.randn(mean.shape)")),
    # --- training
    mutant("optimizer_of_the_decoder", "optimizer_has_all_parameters", VAE,
           (OPTIMIZER, OPTIMIZER.replace("self.p", "self.decoder.p"))),
    mutant("optimizer_ignores_lr", "optimizer_has_the_learning_rate", VAE,
           (OPTIMIZER, OPTIMIZER.replace("self.hparams.lr", "1e-3"))),
    mutant("optimizer_sgd", "optimizer_is_adam", VAE, (OPTIMIZER, OPTIMIZER.replace("Adam", "SGD"))),
    mutant("reconstruction_is_the_loss", "training_minimises_bpd", VAE,
           ("        return bpd\n", "        return L_rec\n")),
    mutant("bpd_is_maximised", "training_minimises_bpd", VAE, ("        return bpd\n", "        return -bpd\n")),
    mutant("losses_logged_under_wrong_names", "losses_are_logged", VAE,
           ('"val_reconstruction_loss", L_rec', '"val_reconstruction_loss", L_reg')),
    mutant("optimizer_rmsprop", "optimizer_is_adam", VAE, (OPTIMIZER, OPTIMIZER.replace("Adam", "RMSprop"))),
    # --- sampling
    mutant("samples_argmax", "samples_are_drawn", VAE, (DRAWN, "x_samples = pixels.argmax(dim=-1)")),
    mutant("samples_rounded_mean", "samples_are_drawn", VAE,
           (DRAWN, "x_samples = (pixels * torch.arange(16, device=self.device)).sum(dim=-1).round()")),
    mutant("samples_without_permutation", "samples_keep_pixels_in_place", VAE,
           (PIXELS, "pixels = probs.reshape(-1, 16)")),
    mutant("samples_transposed", "samples_keep_pixels_in_place", VAE,
           (PIXELS, PIXELS.replace("0, 2, 3, 1", "0, 3, 2, 1"))),
    mutant("samples_softmax_over_width", "samples_follow_the_probabilities", VAE,
           ("F.softmax(logits, dim=1)", "F.softmax(logits, dim=-1)")),
    mutant("samples_with_a_temperature", "samples_follow_the_probabilities", VAE,
           ("F.softmax(logits, dim=1)", "F.softmax(logits / 0.5, dim=1)")),
    mutant("latents_with_larger_scale", "samples_have_latents_of_the_prior", VAE, (PRIOR, PRIOR + " * 2")),
    mutant("latents_uniform", "samples_have_latents_of_the_prior", VAE, (PRIOR, PRIOR.replace("randn", "rand"))),
    mutant("latents_shared", "samples_have_latents_of_the_prior", VAE,
           (PRIOR, PRIOR.replace("batch_size", "1") + ".repeat(batch_size, 1)")),
    mutant("latents_on_cpu", "device_of_samples", VAE, (PRIOR, PRIOR.replace(", device=self.device", ""))),
    mutant("samples_flat", "samples_shape", VAE,
           ("x_samples.reshape(batch_size, 1, 28, 28)", "x_samples.reshape(batch_size, 28, 28)"),
           ("samples = samples.float() / 15", "samples = samples.float().unsqueeze(1) / 15")),
    mutant("samples_not_divided", "saved_samples_have_the_right_brightness", VAE,
           ("samples = samples.float() / 15", "samples = samples.float()")),
    mutant("samples_by_distributions", "no_torch_distributions", VAE,
           (DRAWN, "x_samples = torch.distributions.Categorical(probs=pixels).sample()")),
    # --- manifold
    mutant("manifold_evenly_spaced", "manifold_percentiles", UTILS,
           (VALUES, "values = torch.linspace(-2, 2, grid_size)")),
    mutant("manifold_percentiles_without_ends", "manifold_percentiles", UTILS,
           (PERCENTILES, "percentiles = torch.linspace(0.05, 0.95, grid_size)")),
    mutant("manifold_infinite_ends", "manifold_percentiles", UTILS,
           (PERCENTILES, "percentiles = torch.linspace(0, 1, grid_size)")),
    mutant("manifold_begins_at_zero", "manifold_percentiles", UTILS,
           (PERCENTILES, "percentiles = torch.arange(grid_size) / grid_size")),
    mutant("manifold_diagonal", "manifold_axes", UTILS, (MESH, MESH.replace("z1, z2", "z1, _") + "\n    z2 = z1")),
    mutant("manifold_eight_columns", "manifold_axes", UTILS, (GRID, "img_grid = make_grid(imgs)")),
    mutant("manifold_mixed_up", "manifold_axes", UTILS,
           ("torch.stack([z1, z2], dim=-1).reshape(-1, 2)", "torch.stack([z1, z2], dim=0).reshape(-1, 2)")),
    mutant("manifold_argmax", "manifold_shows_the_mean", UTILS,
           (MEAN, "imgs = probs.argmax(dim=1, keepdim=True) / 15")),
    mutant("manifold_drawn", "manifold_shows_the_mean", UTILS,
           (MEAN, "imgs = torch.multinomial(probs.permute(0, 2, 3, 1).reshape(-1, 16), 1)"
            ".reshape(-1, 1, 28, 28) / 15")),
    mutant("manifold_without_softmax", "manifold_shows_the_mean", UTILS, ("torch.softmax(logits, dim=1)", "logits")),
    mutant("manifold_mean_probability", "manifold_shows_the_mean", UTILS,
           (MEAN, "imgs = probs.max(dim=1, keepdim=True)[0]")),
    mutant("manifold_stretched", "manifold_keeps_the_contrast", UTILS,
           (GRID, "img_grid = make_grid(imgs, nrow=grid_size, normalize=True)")),
    mutant("manifold_up_to_15", "manifold_brightness", UTILS, (MEAN, "imgs = (probs * grey).sum(dim=1, keepdim=True)")),
    mutant("manifold_always_20", "manifold_grid_size", UTILS, (PERCENTILES, "grid_size = 20\n    " + PERCENTILES)),
    mutant("manifold_by_distributions", "no_torch_distributions", UTILS,
           (VALUES, "values = torch.distributions.Normal(0, 1).icdf(percentiles)")),
    mutant("manifold_latents_on_cpu", "device_of_the_manifold", UTILS,
           (".reshape(-1, 2).to(decoder.device)", ".reshape(-1, 2)")),
    # --- more mistakes seen in solutions, or that the closed forms invite
    mutant("kl_log_with_wrong_sign", "kl_value", UTILS, (KL, KL.replace("1 - 2 * log_std", "1 + 2 * log_std"))),
    mutant("kl_minus_one_missing", "kl_value", UTILS, (KL, KL.replace("- 1 ", ""))),
    mutant("kl_of_std_named_log_std", "kl_value", UTILS,
           (KL, "0.5 * (log_std ** 2 + mean ** 2 - 1 - torch.log(log_std ** 2 + 1e-9)).sum(dim=-1)")),
    mutant("bpd_not_divided", "bpd_value", UTILS, (BPD, "bpd = elbo * np.log2(np.e)")),
    mutant("regularization_without_gradient", "gradients_reach_both_networks", VAE,
           (REGULARIZATION, "L_reg = KLD(mean, log_std).mean().detach()")),
    mutant("samples_without_softmax", "samples_follow_the_probabilities", VAE,
           ("F.softmax(logits, dim=1)", "logits - logits.min() + 1e-6")),
    mutant("manifold_of_a_wider_normal", "manifold_percentiles", UTILS,
           (VALUES, VALUES.replace("percentiles.numpy()", "percentiles.numpy(), scale=2"))),
    mutant("manifold_by_the_cdf", "manifold_percentiles", UTILS, (VALUES, VALUES.replace("ppf", "cdf"))),
    in_template("decoder_gelu", "decoder_logits_are_not_squashed", NETWORKS,
                ("        return x\n", "        return nn.functional.gelu(x)\n")),
    in_template("encoder_means_relu", "encoder_outputs_differ", NETWORKS,
                ("mean = self.mean_layer(x)", "mean = torch.relu(self.mean_layer(x))")),
    in_template("kl_detached", "gradients_reach_both_networks", UTILS, (KL, KL + ".detach()")),
    in_template("bpd_of_a_number", "gradients_reach_both_networks", UTILS,
                (BPD, "bpd = torch.tensor(elbo.item() * np.log2(np.e) / num_dims)")),
    in_template("bpd_of_the_sum_of_dimensions", "bpd_value", UTILS,
                ("np.prod(img_shape[1:])", "np.sum(img_shape[1:])")),
    in_template("nll_of_raw_logits", "reconstruction_takes_logits", VAE,
                (LOSS, LOSS.replace("cross_entropy", "nll_loss"))),
    in_template("kl_of_the_std", "latents_follow_the_posterior", VAE,
                (REGULARIZATION, "L_reg = KLD(mean, torch.exp(log_std)).mean()")),
    in_template("prior_is_decoded", "latents_follow_the_posterior", VAE, (LATENTS, "z = torch.randn_like(mean)")),
    in_template("logits_reshaped_without_permutation", "reconstruction_of_the_right_targets", VAE,
                (LOSS, "L_rec = F.cross_entropy(logits.reshape(-1, 16), imgs.flatten(), reduction='sum') / len(imgs)")),
    in_template("samples_softmax_over_images", "samples_follow_the_probabilities", VAE,
                ("F.softmax(logits, dim=1)", "F.softmax(logits, dim=0)")),
    in_template("sample_seeded", "reparameterisation_noise_is_independent", UTILS,
                (NOISE, "torch.manual_seed(0)\n    " + NOISE)),
    in_template("manifold_softmax_over_width", "manifold_shows_the_mean", UTILS,
                ("torch.softmax(logits, dim=1)", "torch.softmax(logits, dim=-1)")),
    # --- any shape, and the parts of the model together
    in_template("kl_over_the_second_axis", "kl_of_any_shape", UTILS, (KL, KL.replace("dim=-1", "dim=1"))),
    in_template("noise_of_two_dimensions", "reparameterisation_of_any_shape", UTILS,
                (NOISE, "eps = torch.randn(std.shape[0], std.shape[1], device=std.device)")),
    in_template("log_of_raw_logits", "reconstruction_takes_logits", VAE,
                (LOSS, "L_rec = F.nll_loss(torch.log(logits), imgs.squeeze(1), reduction='sum') / len(imgs)")),
    in_template("encoder_of_three_channels", "vae_works_as_a_whole", VAE,
                ("CNNEncoder(z_dim=z_dim", "CNNEncoder(num_input_channels=3, z_dim=z_dim")),
    in_template("sample_asks_the_decoder_for_z_dim", "vae_works_as_a_whole", VAE,
                ("torch.randn(batch_size, self.hparams.z_dim", "torch.randn(batch_size, self.decoder.z_dim")),
]  # fmt: skip
