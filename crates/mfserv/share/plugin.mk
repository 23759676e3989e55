# Written by `mfserv setup --commands`: a change is lost when that runs again.
# The rules of a plugin's Makefile (GNU make), which is:  include $(MFEXT_HOME)/share/plugin.mk
#
#   make              build the environment of the plugin
#   make develop      build, and run the plugin from this directory
#   make release      build from scratch, and pack the plugin into one file; with STANDALONE=1
#                     it brings its base environment along, for machines without a network
#   make check        check the configuration
#   make clean        remove what was built; make superclean: the pinned versions too
#
# What you want done besides goes into the rules `precustom::` (before all) and `custom::`
# (after the build) of your Makefile.

MFSERV_HOME ?= @PREFIX@
MFEXT_HOME ?= $(MFSERV_HOME)
MFMODULE_HOME ?= $(MFSERV_HOME)
export MFSERV_HOME MFEXT_HOME MFMODULE_HOME
export PATH := $(MFSERV_HOME)/bin:$(PATH)

NAME := $(shell sed -n 's/^plugin_\(.*\)@mfserv$$/\1/p' .layerapi2_label 2>/dev/null)
ifeq ($(NAME),)
NAME := $(notdir $(CURDIR))
endif
VERSION = $(subst {{MFMODULE_VERSION}},$(MFMODULE_VERSION),$(shell sed -n 's/^_version *= *//p' config.ini 2>/dev/null | head -n 1))
RELEASE ?= 1
LAYERS = root@mfserv $(shell sed -n '/^[^\#]/p' .layerapi2_dependencies 2>/dev/null)

# The steps are one after the other, and precustom is done more than once.
STEP = +@$(MAKE) --no-print-directory

# Rules of one target are all with `:` or all with `::`. A plugin may add to each of these: with
# `clean::` in its Makefile ours is `clean::` too, and both are done.
PLUGIN_MAKEFILE := $(firstword $(MAKEFILE_LIST))
ADDED_TO := $(shell sed -n 's/^\([a-z_][a-z_ ]*\)::.*/\1/p' '$(PLUGIN_MAKEFILE)' 2>/dev/null)
colons = $(if $(filter $1,$(ADDED_TO)),::,:)

.DEFAULT_GOAL := all
.PHONY: all develop release clean superclean check prerelease_check precustom custom

all$(call colons,all)
	$(STEP) precustom
	$(STEP) check
	@_plugins.build
	$(STEP) custom
	@_plugins.build

develop$(call colons,develop) all
	@_plugins.develop --ignore-already-installed $(NAME)

release$(call colons,release)
	$(STEP) precustom
	$(STEP) check
	$(STEP) prerelease_check
	@_plugins.clean --for-release
	$(STEP) precustom
	@_plugins.build
	$(STEP) custom
	$(STEP) precustom
	@_plugins.make $(if $(STANDALONE),--standalone) --show-plugin-path

check$(call colons,check)
	@plugins.check .

# A plugin that runs from this directory may be released: the version is read from config.ini.
prerelease_check$(call colons,prerelease_check)
	@plugins_validate_name $(NAME) >/dev/null

clean$(call colons,clean)
	@_plugins.clean

superclean$(call colons,superclean)
	@_plugins.clean --super

precustom::
	@:

custom::
	@:
