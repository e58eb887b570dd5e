"""The case format, the shipped cases, and what it takes to run one."""
