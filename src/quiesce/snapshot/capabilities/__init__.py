"""Configuration space as the specifications describe it: tables of fields, and an engine that reads any of them.

``decode.decode`` reads a function. Each topic has a module with its tables; ``field`` says what they are made of.
Reading a table needs no knowledge of the engine, and adding a capability needs only an entry in a table.
"""
