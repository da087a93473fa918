"""The planted faults. Each must turn its test red, for the reason given; the same test is green without it.

name    what a reader of the list understands
file    where
old     the text that is replaced; must be there exactly once
new     the fault
test    the one test (below tests/e2e/) that sees it
red     a regular expression that the failure's output must match: red for this reason, not for any
"""

MUTANTS = []
