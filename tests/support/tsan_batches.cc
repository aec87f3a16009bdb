// As tsan_locks.cc, for the way of a batch of operations to its completion, which gRPC goes without
// locks: what a thread did before it started the batch, the thread that takes the completion sees.
#include <grpc/grpc.h>
#include <sanitizer/tsan_interface.h>

namespace jenkins_agent {

grpc_call_error RealStartBatch(grpc_call*, const grpc_op*, size_t, void* tag,
                               void* reserved) asm("__real_grpc_call_start_batch");
grpc_event RealNext(grpc_completion_queue*, gpr_timespec,
                    void* reserved) asm("__real_grpc_completion_queue_next");
grpc_call_error StartBatch(grpc_call*, const grpc_op*, size_t, void* tag,
                           void* reserved) asm("__wrap_grpc_call_start_batch");
grpc_event Next(grpc_completion_queue*, gpr_timespec,
                void* reserved) asm("__wrap_grpc_completion_queue_next");

grpc_call_error StartBatch(grpc_call* call, const grpc_op* ops, size_t count, void* tag,
                           void* reserved) {
  __tsan_release(tag);
  return RealStartBatch(call, ops, count, tag, reserved);
}

grpc_event Next(grpc_completion_queue* queue, gpr_timespec deadline, void* reserved) {
  const grpc_event event = RealNext(queue, deadline, reserved);
  if (event.type == GRPC_OP_COMPLETE) __tsan_acquire(event.tag);
  return event;
}

}  // namespace jenkins_agent
