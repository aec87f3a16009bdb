// What a test needs from the machine. A test that cannot run says why and is counted as skipped.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#define REQUIRES_ROOT() \
  if (::geteuid() != 0) GTEST_SKIP() << "needs root"
#define REQUIRES_PATH(path) \
  if (::access(std::string(path).c_str(), F_OK) != 0) GTEST_SKIP() << "needs " << (path)
