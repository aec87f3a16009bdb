// exporter ADDRESS: the metrics listener, started by the plugin with the socket as its stdin.
#include <signal.h>
#include <unistd.h>

#include "driver/metrics/listener.h"

int main(int argc, char** argv) {
  if (argc != 2) return 1;
  ::signal(SIGPIPE, SIG_IGN);
  return jenkins_agent::RunListener(argv[1], STDIN_FILENO);
}
