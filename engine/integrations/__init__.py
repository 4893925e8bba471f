"""Callbacks that record the dynamics of other trainers' loops: a module per framework, which imports that framework."""
