"""The pages for people: all HTML is made here, by `Pages` (`pages.py`).

Templates (`templates/`) escape all that they are given. Styles and scripts (`assets/`) are files of their own: the
pages' policy allows no others. Looking and downloading needs no script. Scripts add what is better with them.
"""
