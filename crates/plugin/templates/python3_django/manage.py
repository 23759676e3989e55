#!/usr/bin/env python
"""The command line of Django; in the plugin's environment: mfserv exec --cwd {{ name }} -- python manage.py COMMAND"""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{{ name }}.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
