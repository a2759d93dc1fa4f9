"""Journals on disk: the controller writes one, everybody reads them all."""

from jupyter_train.store.copies import JournalCopy
from jupyter_train.store.journal import JournalWriter
from jupyter_train.store.reader import JournalReader
from jupyter_train.store.store import Store
from jupyter_train.store.summary import LastValue, RunSummary

__all__ = ["JournalCopy", "JournalReader", "JournalWriter", "LastValue", "RunSummary", "Store"]
