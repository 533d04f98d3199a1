"""The names of the problems with exact answers, and what each is in a line: to be listed without importing torch."""

PROBLEMS = {
    "wrapped_brownian_motion": (
        "Pure diffusion with a growing rate: the law stays wrapped normal; any error is in the noise variance."
    ),
    "von_mises_well": "One phase falling into a von Mises well of concentration 2 at constant rates.",
    "published": "One phase under the published schedule (reference weight 1.5), from a wrapped normal.",
    "published_doubled": (
        "The weak-error table's problem: reference rate 0.0045 to 6, diffusion 0.005 to 5, from a wrapped normal."
    ),
    "stiff_well": "A steep well, K_ref = 30 and concentration 30: at 10 steps the rate times the step is 3.",
    "noise_dominated": ("A weak well in strong noise that grows fifteenfold: strong orders differ clearly."),
    "drifting": (
        "A natural frequency of 5 over a well of depth 3: the phase slips for ever, and no equilibrium is detailed."
    ),
    "two_coupled": (
        "Two coupled oscillators with opposite frequencies and a reference phase: the exact law on the torus."
    ),
    "two_coupled_well": (
        "Two coupled oscillators with a reference phase at constant rates, whose equilibrium is the Gibbs law."
    ),
    "mean_field_10": (
        "Ten globally coupled oscillators that start independent: expected values from three million paths."
    ),
    "mean_field_100": (
        "A hundred globally coupled oscillators that start independent: the mean-field limit with its 1/N correction."
    ),
    "mean_field_1000": (
        "A thousand globally coupled oscillators that start independent: the mean-field limit with its 1/N correction."
    ),
    "theta_neuron": (
        "A theta neuron that only noise makes fire, its noise gated by the phase and read as Stratonovich's."
    ),
    "phase_response": "A phase oscillator that hears noise through its response sin(theta), as Stratonovich reads it.",
    "common_noise": "Two phase oscillators with the same noise, which synchronises them: the exact law on the torus.",
    "reverse": (
        "The reverse SDE of published_doubled from the law at the horizon back to two modes, with the exact score."
    ),
    "probability_flow": "The probability flow of published_doubled back to two modes, with the exact score.",
}
