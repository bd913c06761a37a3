"""Mistakes in part 3, as students make them."""

from mutant import Mutant
from part3_ours import OURS

SCORES = "att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))"
MASK = 'att = att.masked_fill(self.mask[:, :, :T, :T] == 0, float("-inf"))'
SOFTMAX = "        att = F.softmax(att, dim=-1)\n"
DROP = "        att = self.attn_dropout(att)\n"
VALUES = "y = att @ v\n"
FILTER = 'logits[logits < v[:, [-1]]] = -float("Inf")'
PROBS = "            probs = F.softmax(logits, dim=-1)\n"
LAST = "logits = logits[:, -1, :] / temperature"
CROP = "idx_cond = idx if idx.size(1) <= self.block_size else idx[:, -self.block_size :]"
DRAW = "idx_next = torch.multinomial(probs, num_samples=1)"
BEST = "_, idx_next = torch.topk(probs, k=1, dim=-1)"
APPEND = "            idx = torch.cat((idx, idx_next), dim=1)\n        return idx\n"
TOP_K = (
    "            if top_k is not None:\n                v, _ = torch.topk(logits, top_k)\n                "
    + FILTER
    + "\n"
)
FUSED = (
    "y = F.scaled_dot_product_attention("
    "q, k, v, dropout_p=self.attn_dropout.p if self.training else 0.0, is_causal=True)\n"
)
STEPS = "        " + SCORES + "\n        " + MASK + "\n" + SOFTMAX + DROP + "        " + VALUES


FUSED_2024 = "attn_mask=None, dropout_p=dropout, is_causal=True)"
# What the template of 2023 has no place for: the fused way beside the plain one, and top_p.
OF_2024 = {
    "fused_mask_of_block_size": [("gpt.py", FUSED_2024, "attn_mask=self.mask[0, 0] == 1, dropout_p=dropout)")],
    "fused_way_with_an_unknown_argument": [("gpt.py", FUSED_2024, FUSED_2024.replace("is_causal", "causal"))],
    "fused_way_breaks_off": [("gpt.py", FUSED_2024, FUSED_2024 + "[0, 0, 0, 0, 0]")],
    "fused_without_is_causal": [("gpt.py", FUSED_2024, "attn_mask=None, dropout_p=dropout)")],
    "fused_drops_in_evaluation": [("gpt.py", "self.attn_dropout.p if self.training else 0.0", "self.attn_dropout.p")],
    "fused_with_another_scale": [("gpt.py", FUSED_2024, FUSED_2024[:-1] + ", scale=1.0)")],
    "fused_without_dropout": [("gpt.py", FUSED_2024, FUSED_2024.replace("=dropout", "=0.0"))],
    "top_p_inverted": [("gpt.py", "- probs > top_p", "- probs < top_p")],
    "top_p_ignored": [("gpt.py", "- probs > top_p", "- probs > 1")],
    "top_p_of_the_sorted_order": [("gpt.py", "remove.scatter(1, order, remove)", "remove")],
    "top_p_of_the_first_sequence": [
        ("gpt.py", "remove.scatter(1, order, remove)", "remove.scatter(1, order, remove)[:1].expand_as(logits)")
    ],
}


def _gpt(name: str, criterion: str, *edits: tuple[str, str]) -> Mutant:
    """A mistake in gpt.py; without edits, one that the template of 2023 has no place for."""
    both = {
        "template": [("gpt.py", old, new) for old, new in edits],
        "template_2024": OF_2024.get(name),
        "ours": OURS.get(name),
    }
    return Mutant(name, criterion, {base: changes for base, changes in both.items() if changes})


MUTANTS = [
    _gpt("scale_missing", "attention_scale", (SCORES, "att = q @ k.transpose(-2, -1)")),
    _gpt("scale_by_d", "attention_scale", (SCORES, "att = (q @ k.transpose(-2, -1)) / k.size(-1)")),
    _gpt("scale_by_the_width", "attention_scale", (SCORES, "att = (q @ k.transpose(-2, -1)) / math.sqrt(C)")),
    _gpt("scale_multiplied", "attention_scale", (SCORES, "att = (q @ k.transpose(-2, -1)) * math.sqrt(k.size(-1))")),
    _gpt("scale_by_the_length", "attention_scale", (SCORES, "att = (q @ k.transpose(-2, -1)) / math.sqrt(k.size(-2))")),
    _gpt(
        "softmax_missing",
        "attention_is_a_softmax_of_scores",
        (MASK, "att = att * self.mask[:, :, :T, :T]"),
        (SOFTMAX, "        att = att / att.abs().sum(dim=-1, keepdim=True)\n"),
    ),
    _gpt(
        "masked_after_the_softmax",
        "attention_masks_before_the_softmax",
        ("        " + MASK + "\n", ""),
        (SOFTMAX, SOFTMAX + "        att = att.masked_fill(self.mask[:, :, :T, :T] == 0, 0.0)\n"),
    ),
    _gpt("mask_missing", "attention_is_causal", ("        " + MASK + "\n", "")),
    _gpt("mask_on_the_wrong_triangle", "attention_is_causal", (MASK, MASK.replace("== 0", "== 1"))),
    _gpt(
        "mask_hides_the_position_itself",
        "attention_is_causal",
        (MASK, 'att = att.masked_fill(torch.ones(T, T, device=x.device).triu() == 1, float("-inf"))'),
    ),
    _gpt(
        "mask_shows_the_next_position",
        "attention_is_causal",
        (MASK, 'att = att.masked_fill(torch.ones(T, T, device=x.device).triu(2) == 1, float("-inf"))'),
    ),
    _gpt(
        "mask_fills_with_zero",
        "attention_is_causal",
        (MASK, "att = att.masked_fill(self.mask[:, :, :T, :T] == 0, 0.0)"),
    ),
    _gpt(
        "mask_fills_with_1e-9",
        "attention_is_causal",
        (MASK, "att = att.masked_fill(self.mask[:, :, :T, :T] == 0, 1e-9)"),
    ),
    _gpt(
        "mask_not_cut",
        "attention_mask_fits_the_sequence",
        (MASK, 'att = att.masked_fill(self.mask == 0, float("-inf"))'),
    ),
    _gpt(
        "mask_finite", "attention_mask_is_infinite", (MASK, "att = att.masked_fill(self.mask[:, :, :T, :T] == 0, -1e4)")
    ),
    _gpt(
        "mask_on_the_cpu",
        "attention_on_the_device_of_the_input",
        (MASK, 'att = att.masked_fill(torch.tril(torch.ones(T, T)) == 0, float("-inf"))'),
    ),
    _gpt(
        "softmax_over_the_queries",
        "attention_softmax_over_the_keys",
        (SOFTMAX, "        att = F.softmax(att, dim=-2)\n"),
    ),
    _gpt(
        "softmax_over_the_heads", "attention_softmax_over_the_keys", (SOFTMAX, "        att = F.softmax(att, dim=1)\n")
    ),
    _gpt("dropout_missing", "attention_has_dropout", (DROP, "")),
    _gpt("dropout_on_the_output", "attention_drops_weights", (DROP, ""), (VALUES, "y = self.attn_dropout(att @ v)\n")),
    _gpt("dropout_on_the_scores", "attention_drops_weights", (DROP, ""), (SOFTMAX, DROP + SOFTMAX)),
    _gpt("dropout_on_the_values", "attention_drops_weights", (DROP, ""), (VALUES, "y = att @ self.attn_dropout(v)\n")),
    _gpt(
        "dropout_in_evaluation",
        "attention_has_no_dropout_in_evaluation",
        (DROP, "        att = F.dropout(att, self.attn_dropout.p)\n"),
    ),
    _gpt(
        "fused_alone_without_is_causal",
        "attention_is_causal",
        (STEPS, "        " + FUSED.replace(", is_causal=True", "")),
    ),
    _gpt(
        "fused_alone_drops_in_evaluation",
        "attention_has_no_dropout_in_evaluation",
        (STEPS, "        " + FUSED.replace(" if self.training else 0.0", "")),
    ),
    _gpt("fused_without_is_causal", "fused_attention_is_causal"),
    _gpt("fused_drops_in_evaluation", "fused_attention_has_no_dropout_in_evaluation"),
    _gpt("fused_with_another_scale", "fused_attention_scale"),
    _gpt("fused_without_dropout", "fused_attention_has_dropout"),
    _gpt("top_p_inverted", "top_p_keeps_the_most_probable_tokens"),
    _gpt("top_p_ignored", "top_p_keeps_the_most_probable_tokens"),
    _gpt("temperature_ignored", "temperature_divides_the_logits", (LAST, "logits = logits[:, -1, :]")),
    _gpt("temperature_multiplied", "temperature_divides_the_logits", (LAST, LAST.replace("/", "*"))),
    _gpt(
        "temperature_after_the_softmax",
        "temperature_divides_the_logits",
        (LAST, "logits = logits[:, -1, :]"),
        (PROBS, PROBS.replace("dim=-1)", "dim=-1) / temperature")),
    ),
    _gpt("top_k_ignored", "top_k_keeps_k_tokens", (TOP_K, "")),
    _gpt(
        "top_k_one_too_many",
        "top_k_keeps_k_tokens",
        ("torch.topk(logits, top_k)", "torch.topk(logits, min(top_k + 1, logits.size(-1)))"),
    ),
    _gpt("top_k_one_too_few", "top_k_keeps_k_tokens", (FILTER, FILTER.replace("<", "<="))),
    _gpt("top_k_after_the_softmax", "top_k_keeps_k_tokens", (TOP_K, ""), (PROBS, PROBS + TOP_K)),
    _gpt("top_k_fills_with_zero", "top_k_keeps_k_tokens", (FILTER, "logits[logits < v[:, [-1]]] = 0")),
    _gpt(
        "top_k_shared_across_the_batch",
        "top_k_is_each_sequence_s_own",
        (FILTER, 'logits[logits < v[0, -1]] = -float("Inf")'),
    ),
    _gpt("argmax_and_multinomial_exchanged", "do_sample_chooses_the_strategy", ("if do_sample:", "if not do_sample:")),
    _gpt("always_greedy", "sampling_draws_from_the_softmax", (DRAW, BEST)),
    _gpt("always_drawn", "greedy_takes_the_most_probable_token", (BEST, DRAW)),
    _gpt(
        "least_probable_token",
        "greedy_takes_the_most_probable_token",
        (BEST, "idx_next = probs.argmin(dim=-1, keepdim=True)"),
    ),
    _gpt(
        "drawn_uniformly",
        "sampling_draws_from_the_softmax",
        (DRAW, "idx_next = torch.multinomial((probs > 0).float(), num_samples=1)"),
    ),
    _gpt(
        "logits_of_the_first_position",
        "generate_reads_the_last_position",
        (LAST, "logits = logits[:, 0, :] / temperature"),
    ),
    _gpt(
        "logits_of_the_second_last_position",
        "generate_reads_the_last_position",
        (LAST, "logits = logits[:, max(logits.size(1) - 2, 0), :] / temperature"),
    ),
    _gpt("context_not_cropped", "generate_crops_the_context", (CROP, "idx_cond = idx")),
    _gpt(
        "context_cropped_at_the_wrong_end", "generate_crops_the_context", (CROP, "idx_cond = idx[:, : self.block_size]")
    ),
    _gpt(
        "prompt_not_returned",
        "generate_returns_the_prompt",
        (APPEND, APPEND.replace("return idx\n", "return idx[:, -max_new_tokens:]\n")),
    ),
    _gpt(
        "prompt_returned_twice",
        "generate_returns_the_prompt",
        (APPEND, APPEND.replace("return idx\n", "return torch.cat((idx[:, :-max_new_tokens], idx), dim=1)\n")),
    ),
    _gpt(
        "one_token_too_many",
        "generate_adds_as_many_tokens_as_asked",
        ("in range(max_new_tokens)", "in range(max_new_tokens + 1)"),
    ),
    _gpt(
        "each_token_twice",
        "generate_adds_as_many_tokens_as_asked",
        (APPEND, APPEND.replace("(idx, idx_next)", "(idx, idx_next, idx_next)")),
    ),
    _gpt(
        "mixed_devices_in_generate",
        "generate_on_the_device_of_the_prompt",
        (APPEND, APPEND.replace("(idx, idx_next)", "(idx, idx_next + torch.zeros(idx.size(0), 1, dtype=torch.long))")),
    ),
    _gpt(
        "drawn_by_distributions",
        "gpt_without_distributions",
        (DRAW, "idx_next = torch.distributions.Categorical(probs=probs).sample()[:, None]"),
    ),
    _gpt("keys_for_values", "attention_is_a_softmax_of_scores", (VALUES, "y = att @ k\n")),
    _gpt(
        "mask_times_infinity",
        "attention_is_causal",
        (MASK, 'att = att + (1 - self.mask[:, :, :T, :T]) * float("-inf")'),
    ),
    _gpt(
        "top_k_keeps_the_least_probable",
        "top_k_keeps_k_tokens",
        ("torch.topk(logits, top_k)", "torch.topk(-logits, top_k)"),
        (FILTER, 'logits[-logits < v[:, [-1]]] = -float("Inf")'),
    ),
    _gpt(
        "drawn_from_the_logits",
        "sampling_draws_from_the_softmax",
        (DRAW, "idx_next = torch.multinomial(F.softplus(logits), num_samples=1)"),
    ),
    _gpt(
        "appended_to_the_context",
        "generate_returns_the_prompt",
        (APPEND, APPEND.replace("(idx, idx", "(idx_cond, idx")),
    ),
    _gpt(
        "returns_after_one_token",
        "generate_adds_as_many_tokens_as_asked",
        (APPEND, APPEND.replace("        return idx\n", "            return idx\n")),
    ),
    _gpt("softmax_twice", "attention_is_a_softmax_of_scores", (SOFTMAX, SOFTMAX + SOFTMAX)),
    _gpt("mask_not_assigned", "attention_is_causal", (MASK, MASK.removeprefix("att = "))),
    _gpt(
        "scaled_after_the_softmax",
        "attention_scale",
        (SCORES, "att = q @ k.transpose(-2, -1)"),
        (SOFTMAX, SOFTMAX.replace("dim=-1)", "dim=-1) / math.sqrt(k.size(-1))")),
    ),
    _gpt(
        "infinite_mask_after_the_softmax",
        "attention_masks_before_the_softmax",
        ("        " + MASK + "\n" + SOFTMAX, SOFTMAX + "        " + MASK + "\n"),
    ),
    _gpt(
        "tokens_up_to_max_new_tokens",
        "generate_adds_as_many_tokens_as_asked",
        ("in range(max_new_tokens)", "in range(max_new_tokens - idx.size(1))"),
    ),
    _gpt(
        "probabilities_through_a_softmax",
        "sampling_draws_from_the_softmax",
        (PROBS, PROBS + PROBS.replace("logits", "probs")),
    ),
    _gpt("top_p_of_the_sorted_order", "top_p_keeps_the_most_probable_tokens"),
    _gpt("top_p_of_the_first_sequence", "top_p_keeps_the_most_probable_tokens"),
    _gpt("fused_mask_of_block_size", "fused_attention_is_causal"),
    _gpt("fused_way_breaks_off", "fused_attention_is_causal"),
    _gpt("fused_way_with_an_unknown_argument", "fused_attention_is_causal"),
    _gpt("top_k_breaks_off", "top_k_keeps_k_tokens", (FILTER, FILTER.replace("v[:, [-1]]", "v[:, :, -1]"))),
    _gpt(
        "block_takes_two_results_of_attention",
        "gpt_works_as_a_whole",
        ("x = x + self.attn(self.ln_1(x))", "y, _ = self.attn(self.ln_1(x))\n        x = x + y"),
    ),
    _gpt(
        "greedy_breaks_off",
        "greedy_takes_the_most_probable_token",
        (BEST, "idx_next = torch.argmax(probs, dim=-1).unsqueeze(2)"),
    ),
    _gpt("drawing_breaks_off", "sampling_draws_from_the_softmax", (DRAW, DRAW.replace("probs,", "probs[None],"))),
    _gpt("context_crop_breaks_off", "generate_crops_the_context", (CROP, CROP.replace("else idx[:", "else idx[0, :"))),
]
