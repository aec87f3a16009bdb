// Packets on a supervisor's control socket: the first byte of each piece is its length.
#include <sys/socket.h>

#include <memory>

#include "driver/base/event_loop.h"
#include "driver/base/packet.h"
#include "driver/supervisor/control_server.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace jenkins_agent;
  const std::unique_ptr<EventLoop> loop = *EventLoop::Create();
  SocketPair sockets = *MakeSocketPair(SOCK_SEQPACKET);
  ControlServer server(loop.get(), [](const pb::ControlRequest& request) {
    pb::ControlReply reply;
    reply.set_error(request.note().waiting_for());
    return reply;
  });
  server.Adopt(std::move(sockets.second));
  while (size > 1) {
    const size_t length = std::min<size_t>(data[0], size - 1);
    const absl::string_view packet(reinterpret_cast<const char*>(data + 1), length);
    if (!SendPacket(sockets.first.get(), packet).ok()) break;
    data += 1 + length;
    size -= 1 + length;
  }
  sockets.first.Reset();
  server.NotifyWhenAlone([&loop] { loop->Quit(); });
  loop->Run();
  return 0;
}
