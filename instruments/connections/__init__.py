"""Sockets as an adapter should own them: a deadline on every call, and never the reply of another call."""

from instruments.connections.connection import Connection, Exchange
from instruments.connections.http import HttpReply, http_exchange
from instruments.connections.line import Line, WrongReply

__all__ = ["Connection", "Exchange", "HttpReply", "Line", "WrongReply", "http_exchange"]
