"""Mistakes in part 2, as students make them."""

from mutant import Mutant
from part2_ours import OURS

GEN = "gen_loss = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))"
REAL = "loss_real = F.binary_cross_entropy_with_logits(logits_real, torch.ones_like(logits_real))"
FAKE = "loss_fake = F.binary_cross_entropy_with_logits(logits_fake, torch.zeros_like(logits_fake))"
RECON = "recon_loss = F.mse_loss(recon_x, x)"
TOTAL = "ae_loss = lambda_ * recon_loss + (1 - lambda_) * gen_loss"
ACCURACY = "accuracy = torch.cat([logits_real > 0, logits_fake < 0]).float().mean()"
PRIOR = "z_real = torch.randn_like(z_fake)"
DRAW = "z = torch.randn(batch_size, self.z_dim, device=self.device)"
ZERO_AE = "        optimizer_ae.zero_grad()\n        ae_loss.backward()"
ZERO_DISC = "        optimizer_disc.zero_grad()\n        disc_loss.backward()"
DISC_STEP = "disc_loss, disc_dict = model.get_loss_discriminator(z_fake.detach())"
OPT_AE = "params_ae = list(model.encoder.parameters()) + list(model.decoder.parameters())"
OPT_DISC = "torch.optim.SGD(model.discriminator.parameters(), lr=args.d_lr)"


def _edited(file: str, name: str, criterion: str, edits: tuple[tuple[str, str], ...]) -> Mutant:
    both = {"template": [(file, old, new) for old, new in edits], "ours": OURS.get(name)}
    return Mutant(name, criterion, {base: changes for base, changes in both.items() if changes})


def _models(name: str, criterion: str, *edits: tuple[str, str]) -> Mutant:
    return _edited("models.py", name, criterion, edits)


def _train(name: str, criterion: str, *edits: tuple[str, str]) -> Mutant:
    return _edited("train.py", name, criterion, edits)


MUTANTS = [
    _models("reconstruction_by_l1", "reconstruction_is_squared", (RECON, "recon_loss = F.l1_loss(recon_x, x)")),
    _models(
        "reconstruction_by_sum",
        "reconstruction_is_a_mean",
        (RECON, 'recon_loss = F.mse_loss(recon_x, x, reduction="sum")'),
    ),
    _models(
        "lambda_swapped", "lambda_weighs_both", (TOTAL, "ae_loss = (1 - lambda_) * recon_loss + lambda_ * gen_loss")
    ),
    _models(
        "lambda_on_reconstruction_alone", "lambda_weighs_both", (TOTAL, "ae_loss = lambda_ * recon_loss + gen_loss")
    ),
    _models(
        "lambda_on_generator_alone", "lambda_weighs_both", (TOTAL, "ae_loss = recon_loss + (1 - lambda_) * gen_loss")
    ),
    _models(
        "generator_target_fake",
        "generator_wants_real",
        (GEN, "gen_loss = F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))"),
    ),
    _models(
        "generator_never_asks",
        "generator_asks_the_discriminator",
        ("logits = self.discriminator(z_fake)\n", "logits = self.discriminator(torch.randn_like(z_fake))\n"),
    ),
    _models(
        "generator_falls_when_it_should_rise",
        "generator_wants_real",
        (GEN, "gen_loss = -F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))"),
    ),
    _models(
        "generator_sigmoid_twice",
        "generator_is_cross_entropy",
        (GEN, "gen_loss = F.binary_cross_entropy_with_logits(torch.sigmoid(logits), torch.ones_like(logits))"),
    ),
    _models(
        "generator_summed",
        "generator_is_cross_entropy",
        (GEN, 'gen_loss = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="sum")'),
    ),
    _models(
        "generator_on_detached_codes",
        "generator_reaches_the_encoder",
        ("logits = self.discriminator(z_fake)\n", "logits = self.discriminator(z_fake.detach())\n"),
    ),
    _models(
        "logged_total_without_lambda", "autoencoder_log", ('"ae_loss": ae_loss}', '"ae_loss": recon_loss + gen_loss}')
    ),
    _models(
        "roles_swapped",
        "discriminator_roles",
        (REAL, REAL.replace("ones", "zeros")),
        (FAKE, FAKE.replace("zeros", "ones")),
    ),
    _models("codes_called_real", "discriminator_roles", (FAKE, FAKE.replace("zeros", "ones"))),
    _models(
        "discriminator_sigmoid_twice",
        "discriminator_is_cross_entropy",
        ("logits_real = self.discriminator(z_real)", "logits_real = self.discriminator(z_real).sigmoid()"),
        ("logits_fake = self.discriminator(z_fake)", "logits_fake = self.discriminator(z_fake).sigmoid()"),
        (ACCURACY, "accuracy = torch.cat([logits_real > 0.5, logits_fake < 0.5]).float().mean()"),
    ),
    _models(
        "discriminator_ends_in_sigmoid",
        "discriminator_logits",
        ("nn.Linear(512, 1),\n", "nn.Linear(512, 1),\n            nn.Sigmoid(),\n"),
    ),
    _models(
        "real_term_missing",
        "discriminator_has_both_terms",
        ("disc_loss = (loss_real + loss_fake) / 2", "disc_loss = loss_fake"),
    ),
    _models(
        "fake_term_missing",
        "discriminator_has_both_terms",
        ("disc_loss = (loss_real + loss_fake) / 2", "disc_loss = loss_real"),
    ),
    _models(
        "discriminator_loss_without_graph",
        "discriminator_loss_reaches_its_weights",
        ("disc_loss = (loss_real + loss_fake) / 2", "disc_loss = ((loss_real + loss_fake) / 2).detach()"),
    ),
    _models(
        "logged_discriminator_loss_of_fakes", "discriminator_log", ('"disc_loss": disc_loss', '"disc_loss": loss_fake')
    ),
    _models("prior_uniform", "prior_is_normal", (PRIOR, "z_real = torch.rand_like(z_fake)")),
    _models("prior_wide", "prior_is_normal", (PRIOR, "z_real = 2 * torch.randn_like(z_fake)")),
    _models(
        "prior_one_draw_for_the_batch",
        "prior_has_the_shape_of_the_codes",
        (PRIOR, "z_real = torch.randn(1, z_fake.shape[1], device=z_fake.device)"),
    ),
    _models(
        "prior_always_64",
        "prior_has_the_shape_of_the_codes",
        (PRIOR, "z_real = torch.randn(64, self.z_dim, device=z_fake.device)"),
    ),
    _models("prior_on_the_cpu", "prior_on_the_device_of_the_codes", (PRIOR, "z_real = torch.randn(z_fake.shape)")),
    _models(
        "prior_by_distributions",
        "aae_without_distributions",
        (PRIOR, "z_real = torch.distributions.Normal(0.0, 1.0).sample(z_fake.shape).to(z_fake.device)"),
    ),
    _models(
        "accuracy_of_probabilities_at_zero",
        "accuracy_threshold",
        (ACCURACY, "accuracy = torch.cat([logits_real.sigmoid() > 0, logits_fake.sigmoid() < 0]).float().mean()"),
    ),
    _models(
        "accuracy_over_fakes_alone", "accuracy_counts_both", (ACCURACY, "accuracy = (logits_fake < 0).float().mean()")
    ),
    _models(
        "accuracy_over_reals_alone", "accuracy_counts_both", (ACCURACY, "accuracy = (logits_real > 0).float().mean()")
    ),
    _models("decoder_without_tanh", "decoder_stays_in_range", ("            nn.Tanh(),\n", "")),
    _models("decoder_with_sigmoid", "decoder_stays_in_range", ("nn.Tanh()", "nn.Sigmoid()")),
    _models("decoder_of_32_pixels", "decoder_images", ("output_padding=0,", "output_padding=1,")),
    _models(
        "encoder_of_20_numbers",
        "encoder_codes",
        ("nn.Linear(2 * 16 * c_hid, z_dim),\n        )", "nn.Linear(2 * 16 * c_hid, 20),\n        )"),
    ),
    _models("forward_the_other_way_round", "model_reconstructs", ("return recon_x, z\n", "return z, recon_x\n")),
    _models(
        "sample_of_a_uniform",
        "sample_decodes_the_prior",
        (DRAW, "z = torch.rand(batch_size, self.z_dim, device=self.device)"),
    ),
    _models(
        "sample_of_encoded_noise",
        "sample_decodes_the_prior",
        (DRAW, "z = self.encoder(torch.randn(batch_size, 1, 28, 28, device=self.device))"),
    ),
    _models(
        "sample_on_the_cpu", "samples_on_the_device_of_the_model", (DRAW, "z = torch.randn(batch_size, self.z_dim)")
    ),
    _train(
        "discriminator_changes_the_encoder",
        "discriminator_leaves_the_encoder_alone",
        (ZERO_AE, "        ae_loss.backward()"),
        ("        optimizer_ae.step()\n", "        optimizer_ae.step()\n        optimizer_ae.zero_grad()\n"),
        (DISC_STEP, DISC_STEP.replace("z_fake.detach()", "model.encoder(x)")),
    ),
    _train(
        "autoencoder_zero_grad_missing", "autoencoder_gradients_are_cleared", (ZERO_AE, "        ae_loss.backward()")
    ),
    _train(
        "discriminator_zero_grad_missing",
        "discriminator_gradients_are_cleared",
        (ZERO_DISC, "        disc_loss.backward()"),
    ),
    _train(
        "zero_grad_once_for_both",
        "generator_leaves_the_discriminator_alone",
        (ZERO_DISC, "        disc_loss.backward()"),
        (ZERO_AE, "        optimizer_disc.zero_grad()\n" + ZERO_AE),
    ),
    _train("discriminator_never_steps", "discriminator_learns", ("        optimizer_disc.step()\n", "")),
    _train("autoencoder_never_steps", "autoencoder_learns", ("        optimizer_ae.step()\n", "")),
    _train("lambda_not_handed_on", "lambda_is_handed_on", ("recon_x, z_fake, lambda_)", "recon_x, z_fake)")),
    _train("autoencoder_optimizer_of_everything", "autoencoder_optimizer", (OPT_AE, "params_ae = model.parameters()")),
    _train(
        "autoencoder_optimizer_of_the_decoder",
        "autoencoder_optimizer",
        (OPT_AE, "params_ae = model.decoder.parameters()"),
    ),
    _train(
        "discriminator_optimizer_of_everything",
        "discriminator_optimizer",
        (OPT_DISC, "torch.optim.SGD(model.parameters(), lr=args.d_lr)"),
    ),
    _train(
        "discriminator_optimizer_of_the_encoder",
        "discriminator_optimizer",
        (OPT_DISC, "torch.optim.SGD(model.encoder.parameters(), lr=args.d_lr)"),
    ),
    _train("discriminator_optimizer_missing", "discriminator_optimizer", (OPT_DISC, "None")),
    _train(
        "autoencoder_optimizer_missing",
        "autoencoder_optimizer",
        ("torch.optim.Adam(params_ae, lr=args.ae_lr, betas=(0.5, 0.999))", "None"),
    ),
    _train(
        "autoencoder_optimizer_of_the_encoder",
        "autoencoder_optimizer",
        (OPT_AE, "params_ae = model.encoder.parameters()"),
    ),
    _train(
        "autoencoder_zero_grad_before_its_step",
        "autoencoder_learns",
        (ZERO_AE, "        ae_loss.backward()\n        optimizer_ae.zero_grad()"),
    ),
    _models("prior_shifted", "prior_is_normal", (PRIOR, PRIOR + " + 1")),
    _models("reconstruction_rooted", "reconstruction_is_squared", (RECON, RECON + ".sqrt()")),
    _models(
        "generator_asked_about_reconstructions",
        "generator_asks_the_discriminator",
        ("logits = self.discriminator(z_fake)\n", "logits = self.discriminator(self.encoder(recon_x))\n"),
    ),
    _models(
        "accuracy_of_the_wrong",
        "accuracy_threshold",
        (ACCURACY, ACCURACY.replace(">", "!").replace("<", ">").replace("!", "<")),
    ),
    _models(
        "discriminator_summed_over_batch",
        "discriminator_is_cross_entropy",
        (REAL, REAL[:-1] + ', reduction="sum")'),
        (FAKE, FAKE[:-1] + ', reduction="sum")'),
    ),
    _models(
        "sample_returns_codes", "sample_decodes_the_prior", ("x = self.decoder(z)\n        return x\n", "return z\n")
    ),
    _models(
        "discriminator_of_three_dimensions",
        "networks_take_two_dimensions",
        ("nn.Linear(z_dim, 512)", "nn.Linear(max(z_dim, 3), 512)"),
    ),
    _models(
        "encoder_of_three_dimensions",
        "networks_take_two_dimensions",
        ("nn.Linear(2 * 16 * c_hid, z_dim),\n        )", "nn.Linear(2 * 16 * c_hid, max(z_dim, 3)),\n        )"),
    ),
    _models(
        "encoder_ends_in_relu",
        "encoder_codes",
        (
            "nn.Linear(2 * 16 * c_hid, z_dim),\n        )",
            "nn.Linear(2 * 16 * c_hid, z_dim),\n            nn.ReLU(),\n        )",
        ),
    ),
    _models(
        "discriminator_without_activations",
        "discriminator_logits",
        (
            "nn.LeakyReLU(0.2),\n            nn.Linear(512, 512),\n            nn.LeakyReLU(0.2),\n",
            "nn.Linear(512, 512),\n",
        ),
    ),
    _models(
        "losses_logged_under_each_others_names",
        "autoencoder_log",
        ('"gen_loss": gen_loss, "recon_loss": recon_loss', '"gen_loss": recon_loss, "recon_loss": gen_loss'),
    ),
    _models(
        "accuracy_summed_over_both",
        "accuracy_threshold",
        (ACCURACY, "accuracy = (logits_real > 0).float().mean() + (logits_fake < 0).float().mean()"),
    ),
    _models(
        "accuracy_of_logits_at_one_half",
        "accuracy_threshold",
        (ACCURACY, "accuracy = torch.cat([logits_real > 0.5, logits_fake < 0.5]).float().mean()"),
    ),
    _models("real_term_of_codes", "discriminator_has_both_terms", (REAL, REAL.replace("logits_real", "logits_fake"))),
    _models(
        "discriminator_loss_with_the_wrong_sign",
        "discriminator_roles",
        ("disc_loss = (loss_real + loss_fake) / 2", "disc_loss = -(loss_real + loss_fake) / 2"),
    ),
    _models(
        "prior_of_equal_numbers",
        "prior_has_the_shape_of_the_codes",
        (PRIOR, "z_real = torch.randn_like(z_fake[:, :1]).repeat(1, self.z_dim)"),
    ),
    _train(
        "codes_detached_for_the_generator",
        "autoencoder_learns",
        (
            "recon_x, z_fake = model(x)\n        ae_loss",
            "z_fake = model.encoder(x).detach()\n        recon_x = model.decoder(z_fake)\n        ae_loss",
        ),
    ),
    _train(
        "one_minus_lambda_handed_on",
        "lambda_is_handed_on",
        ("recon_x, z_fake, lambda_)", "recon_x, z_fake, 1 - lambda_)"),
    ),
    _train(
        "steps_on_the_logged_reconstruction",
        "autoencoder_learns",
        ("        ae_loss.backward()", '        ae_dict["recon_loss"].backward()'),
    ),
    _train(
        "steps_on_the_logged_loss_of_fakes",
        "discriminator_learns",
        ("        disc_loss.backward()", '        disc_dict["loss_fake"].backward()'),
    ),
    _models("generator_log_of_logits", "generator_is_cross_entropy", (GEN, "gen_loss = -torch.log(logits).mean()")),
    _models("encoder_of_twice_the_codes", "aae_works_as_a_whole", ("ConvEncoder(z_dim)", "ConvEncoder(2 * z_dim)")),
    _models("aae_sample_asks_the_decoder", "aae_works_as_a_whole", (DRAW, DRAW.replace("self.z", "self.decoder.z"))),
]
