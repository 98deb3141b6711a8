"""The meaning of each exit status, for people. `mount.errors` has the table of exceptions."""

EXIT_STATUSES = {
    0: "Done",
    1: "Another failure",
    2: "Wrong usage: an unknown option, format or protocol, a text that is not a tag or URL",
    3: "Not found: a model, a file, a store",
    4: "The model or the target exists, with other content",
    5: "Damaged, or different from the record (verify); not a model, or too large",
    6: "No space",
    7: "A server cannot be reached, or fails",
    8: "A server denies access",
    130: "Interrupted",
}
