"""Settings of the Django project. See https://docs.djangoproject.com/en/stable/ref/settings/"""

import os
import secrets
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

# What must outlive the releases of the plugin: the database, the secret key, what users have sent.
DATA_DIR = Path(os.environ.get("MFSERV_CURRENT_PLUGIN_DATA_DIR", BASE_DIR))


def secret_key():
    """A key of this machine, made at the first use; all workers and all releases share it."""
    file = DATA_DIR / "secret_key"
    try:
        return file.read_text()
    except FileNotFoundError:
        pass
    stage = DATA_DIR / (".secret_key.%d" % os.getpid())
    descriptor = os.open(stage, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(secrets.token_urlsafe(50))
    try:
        # of several workers that start at once, one makes it
        os.link(stage, file)
    except FileExistsError:
        pass
    finally:
        stage.unlink()
    return file.read_text()


SECRET_KEY = secret_key()

DEBUG = os.environ.get("MFSERV_CURRENT_APP_DEBUG", "0") == "1"

# allowed_hosts in [custom] of config.ini
ALLOWED_HOSTS = os.environ.get("MFSERV_CURRENT_PLUGIN_CUSTOM_ALLOWED_HOSTS", "localhost;127.0.0.1;[::1]").split(";")

INSTALLED_APPS = [
    "main",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "{{ name }}.urls"

WSGI_APPLICATION = "{{ name }}.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "db.sqlite3",
        "OPTIONS": {"timeout": 20},
    },
}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation." + name}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

# mfserv serves main/static at this address without going through Django; "collectstatic" fills it
STATIC_URL = "/{{ name }}/static/"
STATIC_ROOT = BASE_DIR / "main" / "static"

# each message once, in the log of the app
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s [%(levelname)s] %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "DEBUG" if DEBUG else "INFO"},
    "loggers": {
        "django": {"handlers": ["console"], "level": "INFO", "propagate": False},
    },
}
