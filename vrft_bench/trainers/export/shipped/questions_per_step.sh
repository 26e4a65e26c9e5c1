GPUS="${GPUS:-1}"
NODES="${NODES:-1}"
# Questions per step: engines drop the rest of an epoch, so there may not be more than there are; and every device gets
# equally many.
DEVICES=$((GPUS * NODES))
QUESTIONS=$((@QUESTIONS@ * DEVICES))
if ((QUESTIONS > @ROWS@)); then QUESTIONS=$((@ROWS@ < DEVICES ? @ROWS@ : @ROWS@ / DEVICES * DEVICES)); fi
