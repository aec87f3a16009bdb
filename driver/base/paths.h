// The state directory, drawn once. No other file knows these names.
//
//   <state_dir>/                 0700 root
//     owner.lock                 flock: one owner plugin; content: its pid
//     tasks/<32 hex>/            one per task, named by the SHA-256 of Nomad's task id
//       handle.pb                TaskRecord: what recovery and clean-up need, no secrets
//       control.sock             the supervisor's SEQPACKET socket
//       exit.pb                  ExitRecord, written before anyone is told
//       removed                  DestroyTask was called; a plugin that dies in it leaves the rest
//                                to the next
//       supervisor.log           what the supervisor has to say when nobody listens
//       resolv.conf              only when Nomad gave DNS settings
//       rootfs/                  of a task on an image: base/ (the driver's own layer: mount
//       points,
//                                /etc/hosts ...), upper/ and work/ (what the task writes)
//       jar/agent.jar            hard link into the cache, bound into the sandbox read-only
//       jar/agent.jsa            its class-data archive, likewise, when there was one
//       jar/vm.options           options of the JVM that are known when its jar is
//     cds/<boot id>/<key>.<digest>.jsa   class-data archives (task/class_archives.h)
//     cache/agent/<sha256>.jar   agent jars, by digest; beside them what is known of their origins
//     images/                    the image store (image/store.h), unless `images.dir` is elsewhere
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace jenkins_agent {

inline constexpr char kHandleFile[] = "handle.pb";
inline constexpr char kControlSocket[] = "control.sock";
inline constexpr char kExitFile[] = "exit.pb";
inline constexpr char kRemovalMark[] = "removed";
inline constexpr char kSupervisorLog[] = "supervisor.log";
inline constexpr char kResolvConf[] = "resolv.conf";
inline constexpr char kAgentJar[] = "agent.jar";
inline constexpr char kClassArchive[] = "agent.jsa";
inline constexpr char kVmOptionsFile[] = "vm.options";

class StatePaths {
 public:
  explicit StatePaths(std::string state_dir) : root_(std::move(state_dir)) {}

  const std::string& root() const { return root_; }
  std::string OwnerLock() const { return root_ + "/owner.lock"; }
  std::string Tasks() const { return root_ + "/tasks"; }
  std::string Images() const { return root_ + "/images"; }
  std::string AgentJarCache() const { return root_ + "/cache/agent"; }
  std::string ClassArchives() const { return root_ + "/cds"; }
  std::string ClassArchives(const std::string& boot_id) const {
    return ClassArchives() + "/" + boot_id;
  }

  // Directory of one task. Nomad's id ("<alloc>/<task>/<8 hex>") may hold any character of a job's
  // choosing, so it never becomes part of a path.
  std::string Task(absl::string_view task_id) const;
  static std::string RootfsDir(const std::string& task_dir) { return task_dir + "/rootfs"; }
  static std::string JarDir(const std::string& task_dir) { return task_dir + "/jar"; }

 private:
  std::string root_;
};

}  // namespace jenkins_agent
