// The controller check: whether a job's controller would take an agent now.
//
// One process, in the task's network; it becomes nobody before it talks to anybody.
//
// stdin: the request (request.h; of it urls, name, web_socket, ca_file, root_pid, network_namespace
// and resolv_conf) on one line, then open for as long as the answer is wanted.
// stdout, one JSON line: {"state":"ready"} or {"state":"failed","error":".."}
#pragma once

namespace jenkins_agent {

// Exit code: 0 after "ready", 1 after "failed" or when cancelled.
int RunControllerCheck(int in_fd, int out_fd);

}  // namespace jenkins_agent
