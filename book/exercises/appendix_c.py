"""Cases and common slips of the exercises of appendix C."""

from qaconv_lib.exercises import Exercise

four = [[6, 2, -1, 1], [2, 6, 3, -2], [-1, 3, 6, 1], [1, -2, 1, 6]]
three = [[0, 4, 1], [4, 0, 6], [1, 6, 0]]


def signed(logits: list, people: str, margin: float) -> float:
    """The slip: costs below zero are kept."""
    n = range(len(people))
    found = [(i, j, k) for i in n for j in n for k in n if people[j] == people[i] != people[k]]
    costs = [margin - logits[i][j] + logits[i][k] for i, j, k in found if i != j]
    return sum(costs) / len(costs)


popular = [[1.0, 0.5, 0.4], [0.9, 1.0, 0.1], [0.8, 0.2, 1.0]]
four_people = [[9, 0.9, 0.4, 0.2], [0.9, 9, 0.3, 0.1], [0.4, 0.3, 9, 0.8], [0.2, 0.1, 0.8, 9]]

EXERCISES = {
    # triplet_loss_with_margin_one
    "C.2": Exercise(
        [((), 1.5)],
        {
            "That is the sum; the loss is the mean over the four images.": 6.0,
            "That is the loss with margin 2.": 2.5,
        },
    ),
    # share_without_match
    "C.3": Exercise(
        [((32, 200), 0.856082), ((2, 4), 0.75), ((64, 751), 0.919483)],
        {
            "How many other images are there?": lambda b, c: (1 - 1 / c) ** b,
            "That is the chance of a match.": lambda b, c: 1 - (1 - 1 / c) ** (b - 1),
        },
    ),
    # all_triplets
    "C.4": Exercise(
        [((four, "AABB", 2), 1.25), ((four, "AABB", 1), 0.75), ((three, "AAB", 1), 1.0)],
        {"A triplet that is won by more than the margin costs nothing.": signed},
    ),
    # times_chosen
    "C.5": Exercise(
        [((popular, 1), [2, 1, 0]), ((four_people, 2), [3, 1, 3, 1])],
        {"That is how many each chooses, not how often each is chosen.": lambda s, n: [n] * len(s)},
    ),
}
