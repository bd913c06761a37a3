"""The mistakes of part3.py in this repository's solution: file, text, and what takes its place."""

SCORES = "scores = (q / math.sqrt(q.size(-1))) @ k.transpose(-2, -1)"
MASK = "scores = scores.masked_fill(~visible, -math.inf)"
SOFTMAX = "weights = scores.softmax(dim=-1)"
DROP = "        weights = self.attn_dropout(weights)  # (B, nh, T, S)\n"
VALUES = "return weights @ v"
VISIBLE = "visible = self.mask[:, :, S - T : S, :S]"
FUSED = "dropout, is_causal=1 < T == S)"
FUSED_DROPOUT = "dropout = self.attn_dropout.p if self.training else 0.0"
LAST = "self.features(new, cache)[:, -1]"
CROP = "window = idx[:, -self.block_size :]"
RETURN = "return idx if max_new_tokens else idx.clone()"
APPEND = "idx = torch.cat([idx, token], dim=1)"
LOOP = "for _ in range(max_new_tokens):"
DRAWN = "if do_sample and temperature > 0:"
DIVIDED = "divide_by_temperature(logits, temperature)"
TOP_K = "keep_top_k(logits, top_k)"
PROBS = "probs = logits.softmax(dim=-1)"
DRAW = "token = torch.multinomial(probs, num_samples=1, generator=generator)"


def _gpt(*edits: tuple[str, str]) -> list[tuple[str, str, str]]:
    return [("gpt.py", old, new) for old, new in edits]


def _sampling(*edits: tuple[str, str]) -> list[tuple[str, str, str]]:
    return [("sampling.py", old, new) for old, new in edits]


OURS = {
    "scale_missing": _gpt((SCORES, "scores = q @ k.transpose(-2, -1)")),
    "scale_by_d": _gpt((SCORES, "scores = (q / q.size(-1)) @ k.transpose(-2, -1)")),
    "scale_by_the_width": _gpt((SCORES, "scores = (q / math.sqrt(self.n_embd)) @ k.transpose(-2, -1)")),
    "scale_multiplied": _gpt((SCORES, SCORES.replace("/ math", "* math"))),
    "scale_by_the_length": _gpt((SCORES, "scores = (q / math.sqrt(S)) @ k.transpose(-2, -1)")),
    "softmax_missing": _gpt(
        (MASK, "scores = scores * visible"), (SOFTMAX, "weights = scores / scores.abs().sum(-1, keepdim=True)")
    ),
    "masked_after_the_softmax": _gpt((MASK, "pass"), (SOFTMAX, SOFTMAX + ".masked_fill(~visible, 0)")),
    "mask_missing": _gpt((MASK, "pass")),
    "mask_on_the_wrong_triangle": _gpt((MASK, MASK.replace("~visible", "visible"))),
    "mask_hides_the_position_itself": _gpt((MASK, MASK.replace("~visible", "torch.ones_like(visible).triu()"))),
    "mask_shows_the_next_position": _gpt((MASK, MASK.replace("~visible", "torch.ones_like(visible).triu(2)"))),
    "mask_fills_with_zero": _gpt((MASK, MASK.replace("-math.inf", "0.0"))),
    "mask_fills_with_1e-9": _gpt((MASK, MASK.replace("-math.inf", "1e-9"))),
    "mask_not_cut": _gpt((MASK, MASK.replace("visible", "self.mask"))),
    "mask_finite": _gpt((MASK, MASK.replace("-math.inf", "-1e4"))),
    "mask_on_the_cpu": _gpt((MASK, MASK.replace("~visible", "torch.ones(T, S).tril() == 0"))),
    "softmax_over_the_queries": _gpt((SOFTMAX, "weights = scores.softmax(dim=-2)")),
    "softmax_over_the_heads": _gpt((SOFTMAX, "weights = scores.softmax(dim=1)")),
    "dropout_missing": _gpt((DROP, "")),
    "dropout_on_the_output": _gpt((DROP, ""), (VALUES, "return self.attn_dropout(weights @ v)")),
    "dropout_on_the_scores": _gpt((DROP, ""), (SOFTMAX, "weights = self.attn_dropout(scores).softmax(dim=-1)")),
    "dropout_on_the_values": _gpt((DROP, ""), (VALUES, "return weights @ self.attn_dropout(v)")),
    "dropout_in_evaluation": _gpt(
        (DROP, DROP.replace("self.attn_dropout(weights)", "F.dropout(weights, self.attn_dropout.p)"))
    ),
    "fused_without_is_causal": _gpt((FUSED, FUSED.replace(", is_causal=1 < T == S", ""))),
    "fused_drops_in_evaluation": _gpt((FUSED_DROPOUT, "dropout = self.attn_dropout.p")),
    "fused_with_another_scale": _gpt((FUSED, FUSED[:-1] + ", scale=1.0)")),
    "temperature_ignored": _gpt((DIVIDED, "logits")),
    "temperature_multiplied": _gpt((DIVIDED, "logits * temperature")),
    "temperature_after_the_softmax": _gpt((DIVIDED, "logits"), (PROBS, PROBS + " / temperature")),
    "top_k_ignored": _gpt((TOP_K, "logits")),
    "top_k_one_too_many": _gpt((TOP_K, "keep_top_k(logits, top_k + 1)")),
    "top_k_one_too_few": _gpt((TOP_K, "keep_top_k(logits, top_k - 1)")),
    "top_k_shared_across_the_batch": _sampling(
        ("scatter(-1, tokens, highest)", "scatter(-1, tokens[:1].expand_as(tokens), highest)"),
    ),
    "top_p_inverted": _sampling(("sums[:, :-1] >= p", "sums[:, :-1] < p")),
    "top_p_ignored": _gpt(("keep_top_p(logits, top_p)", "logits")),
    "argmax_and_multinomial_exchanged": _gpt((DRAWN, "if not do_sample:")),
    "always_greedy": _gpt((DRAWN, "if False:")),
    "always_drawn": _gpt((DRAWN, "if temperature > 0:")),
    "least_probable_token": _gpt(("token = logits.argmax(", "token = logits.argmin(")),
    "drawn_uniformly": _gpt((DRAW, DRAW.replace("(probs,", "((probs > 0).float(),"))),
    "logits_of_the_first_position": _gpt((LAST, LAST.replace("-1", "0"))),
    "logits_of_the_second_last_position": _gpt((LAST, LAST.replace("-1", "max(new.size(1) - 2, 0)"))),
    "context_not_cropped": _gpt((CROP, "window = idx")),
    "context_cropped_at_the_wrong_end": _gpt((CROP, "window = idx[:, : self.block_size]")),
    "prompt_not_returned": _gpt((RETURN, "return idx[:, -max_new_tokens:]")),
    "prompt_returned_twice": _gpt((RETURN, "return torch.cat([idx[:, :-max_new_tokens], idx], dim=1)")),
    "one_token_too_many": _gpt((LOOP, LOOP.replace("max_new_tokens", "max_new_tokens + 1"))),
    "mixed_devices_in_generate": _gpt(
        (APPEND, APPEND.replace("token]", "token + torch.zeros(len(idx), 1, dtype=torch.long)]"))
    ),
    "drawn_by_distributions": _gpt((DRAW, "token = torch.distributions.Categorical(probs=probs).sample()[:, None]")),
    "keys_for_values": _gpt((VALUES, "return weights @ k")),
    "top_k_keeps_the_least_probable": _sampling(
        ("logits.topk(min(k, logits.size(-1)), dim=-1)", "logits.topk(min(k, logits.size(-1)), dim=-1, largest=False)")
    ),
    "drawn_from_the_logits": _gpt((PROBS, "probs = F.softplus(logits)")),
    "returns_after_one_token": _gpt((LOOP, "for _ in range(1):")),
}
