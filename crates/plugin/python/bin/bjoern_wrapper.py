#!@PYTHON@
import sys

# the directory of this script is no place to import from
sys.path.pop(0)

from mfserv_wsgi import main  # noqa: E402

sys.exit(main())
