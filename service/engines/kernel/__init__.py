"""Compiled operators for attention and recurrence: C++ source, its build, and the engine that uses them.

``source/`` holds the code, ``build`` compiles it, ``library`` opens what was built, ``operators`` gives each operator
as a function of arrays, ``engine`` runs a graph that was cut around them.
"""
