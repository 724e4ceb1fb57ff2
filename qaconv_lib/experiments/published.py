"""Numbers of the paper's tables, for comparison with ours (rank-1 and mAP in percent).

Liao and Shao, ECCV 2020, Tables 1 to 4. Their mAP is the area of trapezoids under the
precision-recall curve, 0.5 to 2.7 points below the step sum on these datasets.
"""

#: Table 1, by loss and direction (source, target); backbone ResNet-152.
TABLE1 = {
    "softmax": {("market", "duke"): (34.9, 18.4), ("duke", "market"): (48.5, 21.4)},
    "arc": {("market", "duke"): (35.3, 17.1), ("duke", "market"): (48.9, 21.4)},
    "center": {("market", "duke"): (38.9, 22.1), ("duke", "market"): (48.8, 22.0)},
    "class-memory": {("market", "duke"): (40.7, 21.8), ("duke", "market"): (47.8, 20.5)},
    "qaconv": {("market", "duke"): (54.4, 33.6), ("duke", "market"): (62.8, 31.6)},
}

#: Table 2, by stage and direction; backbone ResNet-152.
TABLE2 = {
    "alone": {("market", "duke"): (54.4, 33.6), ("duke", "market"): (62.8, 31.6)},
    "+TLift": {("market", "duke"): (62.7, 45.3), ("duke", "market"): (61.5, 40.6)},
    "+RR": {("market", "duke"): (61.8, 52.4), ("duke", "market"): (68.5, 51.2)},
    "+RR+TFusion (best)": {("market", "duke"): (70.7, 61.9), ("duke", "market"): (68.6, 47.2)},
    "+RR+TLift": {("market", "duke"): (70.0, 61.2), ("duke", "market"): (78.7, 58.2)},
}

_SMALL_AND_LARGE = {
    ("alone", "market", "duke"): ((48.8, 28.7), (54.4, 33.6)),
    ("+RR+TLift", "market", "duke"): ((64.5, 55.1), (70.0, 61.2)),
    ("alone", "duke", "market"): ((58.6, 27.2), (62.8, 31.6)),
    ("+RR+TLift", "duke", "market"): ((74.6, 51.5), (78.7, 58.2)),
    ("alone", "msmt17", "duke"): ((69.4, 52.6), (72.2, 53.4)),
    ("+RR+TLift", "msmt17", "duke"): ((80.3, 77.2), (82.2, 78.4)),
    ("alone", "msmt17", "market"): ((72.6, 43.1), (73.9, 46.6)),
    ("+RR+TLift", "msmt17", "market"): ((86.5, 72.2), (88.4, 76.0)),
    ("alone", "market", "cuhk03"): ((9.9, 8.6), (14.1, 11.8)),
    ("alone", "duke", "cuhk03"): ((7.9, 6.8), (11.0, 9.4)),
    ("alone", "msmt17", "cuhk03"): ((25.3, 22.6), (32.6, 28.1)),  # README of the authors, 2e4d56e
    ("alone", "market", "msmt17"): ((22.6, 7.0), (25.6, 8.2)),
    ("alone", "duke", "msmt17"): ((29.0, 8.9), (32.7, 10.4)),
}
#: Tables 3 and 4, by backbone (small is ResNet-50, large ResNet-152), stage, source and target.
TABLES34 = {
    (size, *key): pair
    for key, pairs in _SMALL_AND_LARGE.items()
    for size, pair in zip(("small", "large"), pairs, strict=True)
}

#: Tables 3 and 4, the other methods, by source and target; DECAMEL has several sources ("multi").
#: Methods that adapt train on images of the target, without labels. A baseline is what such a
#: method starts from, before it adapts.
ADAPTING = {
    ("PUL", "market", "duke"): (30.4, 16.4),
    ("PUL", "duke", "market"): (44.7, 20.1),
    ("TJ-AIDL", "market", "duke"): (44.3, 23.0),
    ("TJ-AIDL", "duke", "market"): (58.2, 26.5),
    ("MMFA", "market", "duke"): (45.3, 24.7),
    ("MMFA", "duke", "market"): (56.7, 27.4),
    ("CFSM", "market", "duke"): (49.8, 27.3),
    ("CFSM", "duke", "market"): (61.2, 28.3),
    ("DECAMEL", "multi", "market"): (60.2, 32.4),
    ("PAUL", "market", "duke"): (56.1, 35.7),
    ("PAUL", "duke", "market"): (66.7, 36.8),
    ("ECN", "market", "duke"): (63.3, 40.4),
    ("ECN", "duke", "market"): (75.1, 43.0),
    ("CDS", "market", "duke"): (67.2, 42.7),
    ("CDS", "duke", "market"): (71.6, 39.9),
    ("MAR", "msmt17", "duke"): (67.1, 48.0),
    ("MAR", "msmt17", "market"): (67.7, 40.0),
    ("PAUL", "msmt17", "duke"): (72.0, 53.2),
    ("PAUL", "msmt17", "market"): (68.5, 40.1),
    ("PUL", "market", "cuhk03"): (7.6, 7.3),
    ("CDS", "market", "cuhk03"): (9.1, 8.7),
    ("PUL", "duke", "cuhk03"): (5.6, 5.2),
    ("CDS", "duke", "cuhk03"): (8.1, 7.1),
    ("PTGAN", "market", "msmt17"): (10.2, 2.9),
    ("ECN", "market", "msmt17"): (25.3, 8.5),
    ("PTGAN", "duke", "msmt17"): (11.8, 3.3),
    ("ECN", "duke", "msmt17"): (30.2, 10.2),
}
DIRECT = {
    ("ECN baseline", "market", "duke"): (28.9, 14.8),
    ("ECN baseline", "duke", "market"): (43.1, 17.7),
    ("PN-GAN", "market", "duke"): (29.9, 15.8),
    ("MAR baseline", "msmt17", "duke"): (43.1, 28.8),
    ("MAR baseline", "msmt17", "market"): (46.2, 24.6),
    ("PAUL baseline", "msmt17", "duke"): (65.7, 45.6),
    ("PAUL baseline", "msmt17", "market"): (59.3, 31.0),
}

#: Section 5.5, with DukeMTMC-reID as target: seconds of inference.
INFERENCE_SECONDS = {"features": 26, "matching": 26, "TLift": 67}

#: Section 5.5: hours to train on DukeMTMC-reID with a ResNet-50, on two V100 GPUs; softmax is the
#: fastest of its baselines.
TRAINING_HOURS = {"qaconv": 1.22, "softmax": 0.72}
