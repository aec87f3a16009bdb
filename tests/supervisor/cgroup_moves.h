// The kernel's own log of who moves from cgroup to cgroup, while this object lives. Who is born in
// a cgroup is not in it. Needs root and tracefs; a test's expectations fail without.
#pragma once

#include <memory>
#include <string>

#include "tests/support/temp_dir.h"

namespace jenkins_agent {

class CgroupMoves {
 public:
  CgroupMoves();
  ~CgroupMoves();
  CgroupMoves(const CgroupMoves&) = delete;
  CgroupMoves& operator=(const CgroupMoves&) = delete;

  // `dir`: absolute, of cgroup2.
  bool Into(const std::string& dir) const;
  // That it is logged when somebody does: a child of the caller's goes in, and ends.
  void ExpectThatAMoveIsSeen(const std::string& dir) const;

 private:
  void Write(const std::string& name, const std::string& value) const;

  const TempDir mount_point_;
  const std::string instance_;  // a log of our own
};

}  // namespace jenkins_agent
