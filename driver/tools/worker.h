// The agent-jar worker: waits for a job's controller, fetches its agent.jar into the cache and says
// what kind of agent it is; or inspects a given jar.
//
// Two processes. The parent (root) opens cache and files, forwards what the child says, computes
// the digest and links the finished file into the cache. The child, in the task's network, as
// nobody, talks to the controller and reads the jar: whatever is hostile meets only the child.
//
// stdin: the request (request.h) on one line, then open for as long as the answer is wanted.
// stdout, JSON lines:
//   {"state":"waiting","reason":"http://c:8080/: Connection refused"}     whenever the reason
//   changes
//   {"state":"fetching","url":"http://c:8080/jnlpJars/agent.jar"}
// and as the last one
//   {"state":"ready","path":"<cache_dir>/<sha256>.jar","jar":{"main_class":..,"version":..,
//    "generation":"LAUNCHER_JENKINS","min_java":17,"sha256":..}}          path "": the given file
//   {"state":"failed","error":".."}
#pragma once

namespace jenkins_agent {

// Exit code: 0 after "ready", 1 after "failed" or when cancelled.
int RunAgentJarWorker(int in_fd, int out_fd);

}  // namespace jenkins_agent
