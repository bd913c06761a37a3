"""The mistakes of part1.py in this repository's solution: file, text, and what takes its place."""

UTILS, NETWORKS, VAE = "utils.py", "cnn_encoder_decoder.py", "train_pl.py"
OUR_KL = "0.5 * (torch.expm1(2 * log_std) - 2 * log_std + mean.square()).sum(dim=-1)"
OUR_BPD = "return elbo * (math.log2(math.e) / math.prod(img_shape[1:]))"
OUR_SAMPLE = "return mean + std * torch.randn_like(std)"
OUR_NOISE = "torch.randn_like(std)"
OUR_SCALING = "x = x.to(self.net[0].weight.dtype) / LARGEST_VALUE * 2 - 1"
OUR_HEAD = "        return mean, log_std\n"
OUR_LOGITS = "        return self.net(x)\n"
OUR_LOSS = 'F.cross_entropy(logits, imgs.flatten(), reduction="none").view(batch_size, -1).sum(dim=-1)'
OUR_LATENTS = "z = sample_reparameterize(mean, log_std.exp(), validate_args=False)  # (B, z_dim)"
OUR_RECONSTRUCTION = "L_rec = reconstruction_loss(self.decoder(z), imgs).mean()"
OUR_TOTAL = "return L_rec, L_reg, elbo_to_bpd(L_rec + L_reg, imgs.shape)"
OUR_PRIOR = "z = torch.randn(batch_size, self.hparams.z_dim, device=self.device, dtype=self.dtype)"
OUR_PROBABILITIES = "self.decoder(z).float().softmax(dim=1).permute(0, 2, 3, 1)  # (B, 28, 28, 16)"
OUR_DRAW = "pixels = torch.multinomial(probs.flatten(end_dim=-2), num_samples=1)  # (B*28*28, 1)"
OUR_RESULT = "return pixels.view(probs.shape[:-1]).unsqueeze(1)  # (B, 1, 28, 28)"
OUR_GRID_OF_SAMPLES = "sample_grid(pl_module.sample(self.batch_size))"
OUR_OPTIMIZER = "torch.optim.Adam(self.parameters(), lr=self.hparams.lr, fused=True)"
OUR_STEP = "        return bpd\n"
OUR_PERCENTILES = "percentiles = (torch.arange(grid_size, dtype=torch.float64) + 0.5) / grid_size"
OUR_AXIS = "axis = torch.as_tensor(norm.ppf(percentiles.numpy()), dtype=torch.float32)  # (grid_size)"
OUR_MESH = 'z_1, z_2 = torch.meshgrid(axis, axis, indexing="xy")'
OUR_MEAN = 'return torch.einsum("bkhw,k->bhw", logits.float().softmax(dim=1), values).unsqueeze(1)'
OUR_GRID = "return make_grid(mean_intensity(decoder(z)).cpu(), nrow=grid_size)"


def once(file: str, old: str, new: str) -> list[tuple[str, str, str]]:
    return [(file, old, new)]


OURS: dict[str, list[tuple[str, str, str]]] = {
    "bpd_with_batch": once(UTILS, OUR_BPD, OUR_BPD.replace("[1:]", "")),
    "bpd_in_nats": once(UTILS, OUR_BPD, OUR_BPD.replace("math.log2(math.e)", "1")),
    "bpd_log2e_twice": once(UTILS, OUR_BPD, OUR_BPD.replace("log2(math.e)", "log2(math.e) ** 2")),
    "bpd_divided_by_log2e": once(UTILS, OUR_BPD, OUR_BPD.replace("math.log2(math.e)", "math.log(2)")),
    "bpd_negative": once(UTILS, OUR_BPD, OUR_BPD.replace("elbo", "-elbo")),
    "bpd_without_channels": once(UTILS, OUR_BPD, OUR_BPD.replace("[1:]", "[2:]")),
    "bpd_for_mnist_only": once(UTILS, OUR_BPD, OUR_BPD.replace("math.prod(img_shape[1:])", "784")),
    "kl_unsummed": once(UTILS, OUR_KL, OUR_KL.replace(".sum(dim=-1)", "")),
    "kl_averaged": once(UTILS, OUR_KL, OUR_KL.replace(".sum", ".mean")),
    "kl_over_batch": once(UTILS, OUR_KL, OUR_KL.replace("dim=-1", "dim=0")),
    "kl_of_everything": once(UTILS, OUR_KL, OUR_KL.replace("dim=-1", "")),
    "kl_sigma_for_variance": once(UTILS, OUR_KL, OUR_KL.replace("expm1(2 * log_std)", "expm1(log_std)")),
    "kl_without_half": once(UTILS, OUR_KL, OUR_KL.replace("0.5 * ", "")),
    "kl_wrong_sign": once(UTILS, OUR_KL, OUR_KL.replace("0.5", "-0.5")),
    "kl_of_log_variance": once(UTILS, OUR_KL, OUR_KL.replace("2 * log_std", "log_std")),
    "kl_log_without_factor": once(UTILS, OUR_KL, OUR_KL.replace("- 2 * log_std", "- log_std")),
    "kl_mean_not_squared": once(UTILS, OUR_KL, OUR_KL.replace("mean.square()", "mean")),
    "sample_std_as_variance": once(UTILS, OUR_SAMPLE, OUR_SAMPLE.replace("std *", "std.sqrt() *")),
    "sample_std_squared": once(UTILS, OUR_SAMPLE, OUR_SAMPLE.replace("std *", "std.square() *")),
    "sample_exp_of_std": once(UTILS, OUR_SAMPLE, OUR_SAMPLE.replace("std *", "std.exp() *")),
    "sample_uniform_noise": once(UTILS, OUR_NOISE, "torch.rand_like(mean)"),
    "sample_one_noise_for_all": once(UTILS, OUR_NOISE, "torch.randn((), device=mean.device)"),
    "sample_noise_shared_by_batch": once(UTILS, OUR_NOISE, "torch.randn_like(mean[:1])"),
    "sample_noise_shared_by_latents": once(UTILS, OUR_NOISE, "torch.randn_like(mean[..., :1])"),
    "sample_without_gradient": once(
        UTILS, OUR_SAMPLE, OUR_SAMPLE.replace("mean + std", "mean.detach() + std.detach()")
    ),
    "sample_noise_on_cpu": once(UTILS, OUR_NOISE, "torch.randn(mean.shape)"),
    "sample_by_distributions": once(UTILS, OUR_SAMPLE, "return torch.distributions.Normal(mean, std).rsample()"),
    "negative_std_accepted": once(UTILS, "if validate_args and bool((std < 0).any()):", "if False:"),
    "encoder_unscaled": once(NETWORKS, OUR_SCALING, OUR_SCALING.replace(" / LARGEST_VALUE * 2 - 1", "")),
    "encoder_divided_by_255": once(NETWORKS, OUR_SCALING, OUR_SCALING.replace("LARGEST_VALUE * 2 - 1", "255")),
    "encoder_mean_twice": once(NETWORKS, OUR_HEAD, "        return mean, mean\n"),
    "encoder_twice_as_wide": once(
        NETWORKS, OUR_HEAD, "        return mean, torch.cat([log_std] * (1 + (mean.shape[1] > 2)), dim=1)\n"
    ),
    "decoder_tanh": once(NETWORKS, OUR_LOGITS, "        return self.net(x).tanh()\n"),
    "decoder_sigmoid": once(NETWORKS, OUR_LOGITS, "        return self.net(x).sigmoid()\n"),
    "decoder_softmax": once(NETWORKS, OUR_LOGITS, "        return self.net(x).softmax(dim=1)\n"),
    "decoder_relu": once(NETWORKS, OUR_LOGITS, "        return self.net(x).relu()\n"),
    "decoder_32_pixels": once(
        NETWORKS, OUR_LOGITS, "        x = nn.functional.pad(self.net(x), (0, 4, 0, 4))\n"
        "        return x if z.shape[1] > 2 else x[..., :28, :28]\n"
    ),
    "decoder_tensor_on_cpu": once(
        NETWORKS, ".unflatten(1, (-1, 4, 4))  #", ".unflatten(1, (-1, 4, 4)) + torch.zeros(len(z), 1, 1, 1)  #"
    ),
    "networks_for_20_latents": once(NETWORKS, "nn.Linear(z_dim, 2 * c * 4 * 4)", "nn.Linear(20, 2 * c * 4 * 4)"),
    "reconstruction_averaged_over_pixels": once(UTILS, OUR_LOSS, OUR_LOSS.replace(".sum", ".mean")),
    "reconstruction_summed_over_batch": once(VAE, OUR_RECONSTRUCTION, OUR_RECONSTRUCTION.replace("mean", "sum")),
    "reconstruction_over_batch_twice": once(VAE, OUR_RECONSTRUCTION, OUR_RECONSTRUCTION + " / len(imgs)"),
    "reconstruction_in_bits": once(UTILS, OUR_LOSS, OUR_LOSS + " / math.log(2)"),
    "reconstruction_shifted_targets": once(
        UTILS, OUR_LOSS, OUR_LOSS.replace("imgs.flatten()", "(imgs.flatten() - 1).clamp(min=0)")
    ),
    "reconstruction_transposed": once(UTILS, OUR_LOSS, OUR_LOSS.replace("imgs.", "imgs.transpose(2, 3).")),
    "reconstruction_softmax_first": once(UTILS, OUR_LOSS, OUR_LOSS.replace("logits,", "logits.softmax(dim=-1),")),
    "regularization_summed_over_batch": once(VAE, "KLD(mean, log_std).mean()", "KLD(mean, log_std).sum()"),
    "regularization_over_batch_twice": once(VAE, "KLD(mean, log_std).mean()", "KLD(mean, log_std).mean() / len(imgs)"),
    "bpd_without_regularization": once(VAE, OUR_TOTAL, OUR_TOTAL.replace("(L_rec + L_reg", "(L_rec")),
    "bpd_of_the_difference": once(VAE, OUR_TOTAL, OUR_TOTAL.replace("+", "-")),
    "log_std_as_std": once(VAE, OUR_LATENTS, "z = mean + log_std * torch.randn_like(mean)"),
    "log_std_handed_to_the_sample": once(VAE, OUR_LATENTS, OUR_LATENTS.replace("exp()", "abs()")),
    "variance_handed_to_the_sample": once(
        VAE, OUR_LATENTS, OUR_LATENTS.replace("log_std.exp()", "(2 * log_std).exp()")
    ),
    "sample_of_half_log_std": once(VAE, OUR_LATENTS, OUR_LATENTS.replace("log_std.exp()", "(log_std / 2).exp()")),
    "mean_is_decoded": once(VAE, OUR_LATENTS, "z = mean"),
    "sample_detached": once(VAE, OUR_LATENTS, OUR_LATENTS.replace(")  #", ").detach()  #")),
    "images_squeezed": once(
        VAE, OUR_RECONSTRUCTION,
        'L_rec = torch.nn.functional.cross_entropy(self.decoder(z), imgs.squeeze(), reduction="sum") / len(imgs)',
    ),
    "latents_beside_the_model": once(VAE, OUR_LATENTS, "z = mean + log_std.exp() * torch.randn(mean.shape)"),
    "optimizer_of_the_decoder": once(VAE, OUR_OPTIMIZER, OUR_OPTIMIZER.replace("self.p", "self.decoder.p")),
    "optimizer_ignores_lr": once(VAE, OUR_OPTIMIZER, OUR_OPTIMIZER.replace("self.hparams.lr", "1e-3")),
    "optimizer_sgd": once(VAE, OUR_OPTIMIZER, OUR_OPTIMIZER.replace("Adam", "SGD")),
    "reconstruction_is_the_loss": once(VAE, OUR_STEP, "        return L_rec\n"),
    "bpd_is_maximised": once(VAE, OUR_STEP, "        return -bpd\n"),
    "losses_logged_under_wrong_names": once(
        VAE,
        "train_reconstruction_loss=L_rec, train_regularization_loss=L_reg",
        "train_reconstruction_loss=L_reg, train_regularization_loss=L_rec",
    ),
    "optimizer_rmsprop": once(VAE, OUR_OPTIMIZER, "torch.optim.RMSprop(self.parameters(), lr=self.hparams.lr)"),
    "samples_argmax": once(VAE, OUR_DRAW, "pixels = probs.flatten(end_dim=-2).argmax(dim=-1)"),
    "samples_rounded_mean": once(
        VAE, OUR_DRAW, "pixels = (probs * torch.arange(16, device=self.device)).sum(dim=-1).round().flatten()"
    ),
    "samples_without_permutation": once(
        VAE, OUR_PROBABILITIES, "self.decoder(z).float().softmax(dim=1).reshape(-1, 28, 28, 16)"
    ),
    "samples_transposed": once(VAE, OUR_PROBABILITIES, OUR_PROBABILITIES.replace("0, 2, 3, 1", "0, 3, 2, 1")),
    "samples_softmax_over_width": once(VAE, OUR_PROBABILITIES, OUR_PROBABILITIES.replace("dim=1", "dim=-1")),
    "samples_with_a_temperature": once(VAE, OUR_PROBABILITIES, OUR_PROBABILITIES.replace("float()", "float().mul(2)")),
    "latents_with_larger_scale": once(VAE, OUR_PRIOR, OUR_PRIOR + " * 2"),
    "latents_uniform": once(VAE, OUR_PRIOR, OUR_PRIOR.replace("randn", "rand")),
    "latents_shared": once(VAE, OUR_PRIOR, OUR_PRIOR.replace("batch_size", "1") + ".repeat(batch_size, 1)"),
    "latents_on_cpu": once(VAE, OUR_PRIOR, OUR_PRIOR.replace(" device=self.device,", "")),
    "samples_flat": [
        (VAE, OUR_RESULT, OUR_RESULT.replace(".unsqueeze(1)", "")),
        (VAE, OUR_GRID_OF_SAMPLES, OUR_GRID_OF_SAMPLES.replace("))", ").unsqueeze(1))")),
    ],
    "samples_not_divided": once(
        VAE, OUR_GRID_OF_SAMPLES, OUR_GRID_OF_SAMPLES.replace("pl_module", "15 * pl_module")
    ),
    "samples_by_distributions": once(VAE, OUR_DRAW, "pixels = torch.distributions.Categorical(probs).sample()"),
    "manifold_evenly_spaced": once(UTILS, OUR_AXIS, "axis = torch.linspace(-2, 2, grid_size)"),
    "manifold_percentiles_without_ends": once(
        UTILS, OUR_PERCENTILES, "percentiles = torch.linspace(0.05, 0.95, grid_size, dtype=torch.float64)"
    ),
    "manifold_infinite_ends": once(
        UTILS, OUR_PERCENTILES, "percentiles = torch.linspace(0, 1, grid_size, dtype=torch.float64)"
    ),
    "manifold_begins_at_zero": once(UTILS, OUR_PERCENTILES, OUR_PERCENTILES.replace(" + 0.5", "")),
    "manifold_diagonal": once(UTILS, OUR_MESH, OUR_MESH + "\n    z_2 = z_1"),
    "manifold_eight_columns": once(UTILS, OUR_GRID, OUR_GRID.replace(", nrow=grid_size", "")),
    "manifold_mixed_up": once(
        UTILS, "torch.stack([z_1.flatten(), z_2.flatten()], dim=-1)", "torch.stack([z_1, z_2]).reshape(-1, 2)"
    ),
    "manifold_argmax": once(UTILS, OUR_MEAN, "return logits.argmax(dim=1, keepdim=True) / 15"),
    "manifold_drawn": once(
        UTILS, OUR_MEAN,
        "probs = logits.float().softmax(dim=1).permute(0, 2, 3, 1)\n"
        "    return torch.multinomial(probs.flatten(end_dim=-2), 1).view(probs.shape[:-1]).unsqueeze(1) / 15",
    ),
    "manifold_without_softmax": once(UTILS, OUR_MEAN, OUR_MEAN.replace(".softmax(dim=1)", "")),
    "manifold_mean_probability": once(
        UTILS, OUR_MEAN, "return logits.float().softmax(dim=1).amax(dim=1, keepdim=True)"
    ),
    "manifold_stretched": once(UTILS, OUR_GRID, OUR_GRID.replace("=grid_size", "=grid_size, normalize=True")),
    "manifold_up_to_15": once(UTILS, OUR_GRID, OUR_GRID.replace("mean_intensity", "15 * mean_intensity")),
    "manifold_always_20": once(UTILS, OUR_PERCENTILES, "grid_size = 20\n    " + OUR_PERCENTILES),
    "manifold_by_distributions": once(
        UTILS, OUR_AXIS, "axis = torch.distributions.Normal(0.0, 1.0).icdf(percentiles).float()"
    ),
    "manifold_latents_on_cpu": once(UTILS, ".to(decoder.device)  # (grid_size^2, 2)", "  # (grid_size^2, 2)"),
    "kl_log_with_wrong_sign": once(UTILS, OUR_KL, OUR_KL.replace("- 2 * log_std", "+ 2 * log_std")),
    "kl_minus_one_missing": once(UTILS, OUR_KL, OUR_KL.replace("expm1", "exp")),
    "kl_of_std_named_log_std": once(
        UTILS, OUR_KL, "0.5 * (log_std.square() + mean.square() - 1 - log_std.square().add(1e-9).log()).sum(dim=-1)"
    ),
    "bpd_not_divided": once(UTILS, OUR_BPD, "return elbo * math.log2(math.e)"),
    "regularization_without_gradient": once(
        VAE, "KLD(mean, log_std).mean()", "KLD(mean.detach(), log_std.detach()).mean()"
    ),
    "samples_without_softmax": once(
        VAE, OUR_PROBABILITIES, OUR_PROBABILITIES.replace("softmax(dim=1)", "add(60).clamp(min=1e-6)")
    ),
    "manifold_of_a_wider_normal": once(UTILS, OUR_AXIS, OUR_AXIS.replace("numpy()", "numpy(), scale=2")),
    "manifold_by_the_cdf": once(UTILS, OUR_AXIS, OUR_AXIS.replace("ppf", "cdf")),
}  # fmt: skip
