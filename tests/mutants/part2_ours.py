"""The mistakes of part2.py in this repository's solution: file, text, and what takes its place."""

RECON = "F.mse_loss(_at_least_float32(recon_x), _at_least_float32(x))"
TOTAL = "lambda_ * recon_loss + (1 - lambda_) * gen_loss"
GEN = "gen_loss = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))"
ASKED = "logits = _at_least_float32(self.discriminator(z_fake))"
REAL = "F.binary_cross_entropy_with_logits(real, torch.ones_like(real))"
FAKE = "F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))"
BOTH = "disc_loss = 0.5 * (loss_real + loss_fake)"
ACCURACY = "accuracy = 0.5 * ((real > 0).float().mean() + (fake < 0).float().mean())"
PRIOR = "z_real = torch.randn_like(z_fake)"
DRAW = "z = torch.randn(batch_size, self.z_dim, device=weight.device, dtype=weight.dtype)"
TANH, BIAS = "            nn.Tanh(),\n", "self.net[-2].bias"
CUT = "        z_fake = z_fake.detach()\n"
ZERO_AE = "        optimizer_ae.zero_grad(set_to_none=True)\n"
ZERO_DISC = "        optimizer_disc.zero_grad(set_to_none=True)\n"
STEP_AE = "        optimizer_ae.step()\n"
AUTOENCODER = "autoencoder = [*model.encoder.parameters(), *model.decoder.parameters()]"
DISCRIMINATOR = "SGD(model.discriminator.parameters(), lr=d_lr, fused=True)"


def _models(*edits: tuple[str, str]) -> list[tuple[str, str, str]]:
    return [("models.py", old, new) for old, new in edits]


def _train(*edits: tuple[str, str]) -> list[tuple[str, str, str]]:
    return [("train.py", old, new) for old, new in edits]


OURS = {
    "reconstruction_by_l1": _models((RECON, RECON.replace("mse", "l1"))),
    "reconstruction_by_sum": _models((RECON, RECON[:-1] + ', reduction="sum")')),
    "lambda_swapped": _models((TOTAL, "(1 - lambda_) * recon_loss + lambda_ * gen_loss")),
    "lambda_on_reconstruction_alone": _models((TOTAL, "lambda_ * recon_loss + gen_loss")),
    "lambda_on_generator_alone": _models((TOTAL, "recon_loss + (1 - lambda_) * gen_loss")),
    "generator_target_fake": _models((GEN, GEN.replace("ones", "zeros"))),
    "generator_never_asks": _models((ASKED, ASKED.replace("z_fake", "torch.randn_like(z_fake)"))),
    "generator_falls_when_it_should_rise": _models((GEN, GEN.replace("= F.", "= -F."))),
    "generator_sigmoid_twice": _models((GEN, GEN.replace("(logits, ", "(logits.sigmoid(), "))),
    "generator_summed": _models((GEN, GEN[:-1] + ', reduction="sum")')),
    "generator_on_detached_codes": _models((ASKED, ASKED.replace("z_fake", "z_fake.detach()"))),
    "logged_total_without_lambda": _models(('"ae_loss": ae_loss}', '"ae_loss": recon_loss + gen_loss}')),
    "roles_swapped": _models((REAL, REAL.replace("ones", "zeros")), (FAKE, FAKE.replace("zeros", "ones"))),
    "codes_called_real": _models((FAKE, FAKE.replace("zeros", "ones"))),
    "discriminator_sigmoid_twice": _models(
        (REAL, REAL.replace("(real, ", "(real.sigmoid(), ")), (FAKE, FAKE.replace("(fake, ", "(fake.sigmoid(), "))
    ),
    "discriminator_ends_in_sigmoid": _models(
        ("nn.Linear(512, 1),\n", "nn.Linear(512, 1),\n            nn.Sigmoid(),\n")
    ),
    "real_term_missing": _models((BOTH, "disc_loss = loss_fake")),
    "fake_term_missing": _models((BOTH, "disc_loss = loss_real")),
    "discriminator_loss_without_graph": _models((BOTH, BOTH + ".detach()")),
    "logged_discriminator_loss_of_fakes": _models(('"disc_loss": disc_loss', '"disc_loss": loss_fake')),
    "prior_uniform": _models((PRIOR, "z_real = torch.rand_like(z_fake)")),
    "prior_wide": _models((PRIOR, "z_real = 2 * torch.randn_like(z_fake)")),
    "prior_one_draw_for_the_batch": _models((PRIOR, "z_real = torch.randn_like(z_fake[:1])")),
    "prior_always_64": _models((PRIOR, "z_real = torch.randn(64, self.z_dim, device=z_fake.device)")),
    "prior_on_the_cpu": _models((PRIOR, "z_real = torch.randn(z_fake.shape)")),
    "prior_by_distributions": _models(
        (PRIOR, "z_real = torch.distributions.Normal(0.0, 1.0).sample(z_fake.shape).to(z_fake.device)")
    ),
    "accuracy_of_probabilities_at_zero": _models(
        (ACCURACY, ACCURACY.replace("real >", "real.sigmoid() >").replace("fake <", "fake.sigmoid() <"))
    ),
    "accuracy_over_fakes_alone": _models((ACCURACY, "accuracy = (fake < 0).float().mean()")),
    "accuracy_over_reals_alone": _models((ACCURACY, "accuracy = (real > 0).float().mean()")),
    "decoder_without_tanh": _models((TANH, ""), (BIAS, "self.net[-1].bias")),
    "decoder_with_sigmoid": _models((TANH, TANH.replace("Tanh", "Sigmoid"))),
    "decoder_of_32_pixels": _models(("stride=2),  # 4x4 -> 7x7", "stride=2, output_padding=1),  # 4x4 -> 8x8")),
    "encoder_of_20_numbers": _models(("nn.Linear(2 * c * 4 * 4, z_dim),", "nn.Linear(2 * c * 4 * 4, 20),")),
    "forward_the_other_way_round": _models(("return self.decoder(z), z\n", "return z, self.decoder(z)\n")),
    "sample_of_a_uniform": _models((DRAW, DRAW.replace("randn", "rand"))),
    "sample_of_encoded_noise": _models(
        (DRAW, "z = self.encoder(torch.randn(batch_size, 1, 28, 28, device=weight.device))")
    ),
    "sample_on_the_cpu": _models((DRAW, "z = torch.randn(batch_size, self.z_dim)")),
    "discriminator_changes_the_encoder": [
        *_models((CUT, "")),
        *_train(
            (ZERO_AE, ""),
            (STEP_AE, STEP_AE + ZERO_AE),
            ("discriminator(z_fake.detach())", "discriminator(model.encoder(x))"),
        ),
    ],
    "autoencoder_zero_grad_missing": _train((ZERO_AE, "")),
    "discriminator_zero_grad_missing": _train((ZERO_DISC, "")),
    "zero_grad_once_for_both": [
        *_train((ZERO_DISC, ""), (ZERO_AE, ZERO_AE + ZERO_DISC)),
    ],
    "discriminator_never_steps": _train(("        optimizer_disc.step()\n", "")),
    "autoencoder_never_steps": _train((STEP_AE, "")),
    "lambda_not_handed_on": _train(("recon_x, z_fake, lambda_)", "recon_x, z_fake)")),
    "autoencoder_optimizer_of_everything": _train((AUTOENCODER, "autoencoder = list(model.parameters())")),
    "autoencoder_optimizer_of_the_decoder": _train((AUTOENCODER, "autoencoder = list(model.decoder.parameters())")),
    "discriminator_optimizer_of_everything": _train((DISCRIMINATOR, DISCRIMINATOR.replace(".discriminator", ""))),
    "discriminator_optimizer_of_the_encoder": _train(
        (DISCRIMINATOR, DISCRIMINATOR.replace("discriminator", "encoder"))
    ),
    "autoencoder_optimizer_of_the_encoder": _train((AUTOENCODER, "autoencoder = list(model.encoder.parameters())")),
    "autoencoder_zero_grad_before_its_step": _train((ZERO_AE, ""), (STEP_AE, ZERO_AE + STEP_AE)),
    "prior_shifted": _models((PRIOR, PRIOR + " + 1")),
    "reconstruction_rooted": _models((RECON, RECON + ".sqrt()")),
    "generator_asked_about_reconstructions": _models((ASKED, ASKED.replace("z_fake", "self.encoder(recon_x)"))),
    "accuracy_of_the_wrong": _models((ACCURACY, ACCURACY.replace("real >", "real <").replace("fake <", "fake >"))),
    "discriminator_summed_over_batch": _models(
        (REAL, REAL[:-1] + ', reduction="sum")'), (FAKE, FAKE[:-1] + ', reduction="sum")')
    ),
    "discriminator_of_three_dimensions": _models(("nn.Linear(z_dim, 512)", "nn.Linear(max(z_dim, 3), 512)")),
    "encoder_of_three_dimensions": _models(
        ("nn.Linear(2 * c * 4 * 4, z_dim),", "nn.Linear(2 * c * 4 * 4, max(z_dim, 3)),")
    ),
}
