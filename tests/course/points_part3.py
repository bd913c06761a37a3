"""Points of part 3's coding questions.

Each criterion's file says at its top which alternatives are accepted.
"""

POINTS_PART3 = {
    "3.2": {
        "attention_is_a_softmax_of_scores": 0.5,
        "attention_scale": 0.5,
        "attention_is_causal": 0.5,
        "attention_masks_before_the_softmax": 0.4,
        "attention_softmax_over_the_keys": 0.4,
        "attention_mask_is_infinite": 0.2,
        "attention_mask_fits_the_sequence": 0.3,
        "attention_on_the_device_of_the_input": 0.1,
        "attention_has_dropout": 0.25,
        "attention_drops_weights": 0.25,
        "attention_has_no_dropout_in_evaluation": 0.2,
        "fused_attention_is_causal": 0.1,
        "fused_attention_scale": 0.1,
        "fused_attention_has_no_dropout_in_evaluation": 0.1,
        "fused_attention_has_dropout": 0.1,
    },
    "3.3": {
        "generate_returns_the_prompt": 0.2,
        "generate_adds_as_many_tokens_as_asked": 0.2,
        "generate_reads_the_last_position": 0.2,
        "gpt_works_as_a_whole": 0.2,
        "generate_crops_the_context": 0.2,
        "generate_on_the_device_of_the_prompt": 0.1,
        "do_sample_chooses_the_strategy": 0.3,
        "greedy_takes_the_most_probable_token": 0.4,
        "sampling_draws_from_the_softmax": 0.4,
        "temperature_divides_the_logits": 0.2,
        "top_k_keeps_k_tokens": 0.2,
        "top_k_is_each_sequence_s_own": 0.1,
        "top_p_keeps_the_most_probable_tokens": 0.1,
        "gpt_without_distributions": 0.2,
    },
}
