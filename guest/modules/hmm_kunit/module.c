// SPDX-License-Identifier: GPL-2.0
#include <hmm_kunit.c>
