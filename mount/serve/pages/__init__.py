"""The pages for people. All HTML is made here."""
