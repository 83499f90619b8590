"""The table, one file per README."""

from translation.systems.d_bert import D_BERT
from translation.systems.distilbert import DISTILBERT
from translation.systems.offline import OFFLINE
from translation.systems.task_agnostic import TASK_AGNOSTIC
from translation.table import Script, System

SYSTEMS: tuple[System, ...] = (OFFLINE, DISTILBERT, D_BERT, TASK_AGNOSTIC)
SCRIPTS: tuple[Script, ...] = tuple(script for system in SYSTEMS for script in system.scripts)
